"""Weights that others published: Meta's and Hugging Face's SAM converted, what does not fit refused."""

import os
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from lakescale.models import convert_checkpoint, load_model
from lakescale.models.convert import rename_weights
from lakescale.models.sam import SIZES, SamNetwork, guess_size, sam_spec
from lakescale.schema import InputError


def changed(weights, **names):
    return {**{k: v for k, v in weights.items() if k not in names}, **{k: v for k, v in names.items() if v is not None}}


# -- SAM as others keep it


@pytest.fixture(scope="module")
def tiny_sam():
    """Segment Anything of 64 x 64 pixels and two blocks, built with its own classes."""
    torch.manual_seed(2)
    sam = Sam(
        ImageEncoderViT(
            img_size=64,
            patch_size=16,
            embed_dim=32,
            depth=3,
            num_heads=2,
            out_chans=32,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            rel_pos_zero_init=False,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(32, (4, 4), (64, 64), 8),
        MaskDecoder(
            transformer_dim=32, transformer=TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=48, num_heads=8)
        ),
    )
    for parameter in sam.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return sam.eval()


def test_metas_weights_are_converted(tiny_sam, tmp_path):
    torch.save(tiny_sam.state_dict(), tmp_path / "sam_vit_t.pth")
    target = tmp_path / "sam.safetensors"
    told = convert_checkpoint(tmp_path / "sam_vit_t.pth", target)
    model = load_model(target)
    assert model.hash == told
    assert model.spec.title == "sam-vit"
    assert model.spec.window == 64
    assert model.spec.bands == ("red", "green", "blue")
    assert model.spec.training == {"converted_from": "sam_vit_t.pth", "kind": "segment-anything"}
    again, wanted = model.network.module.state_dict(), tiny_sam.state_dict()
    assert again.keys() == wanted.keys()
    assert all(again[name].equal(wanted[name]) for name in wanted)
    with pytest.raises(InputError, match="there already"):
        convert_checkpoint(tmp_path / "sam_vit_t.pth", target)
    assert convert_checkpoint(tmp_path / "sam_vit_t.pth", target, overwrite=True) == told


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_published_sizes_are_read_off_shapes(name):
    with torch.device("meta"):
        published = sam_model_registry[name]().state_dict()
        ours = SamNetwork(sam_spec(SIZES[name])).module.state_dict()
    assert guess_size(published) == SIZES[name]
    assert sam_spec(guess_size(published)).encoder == name
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in published.items()}


def test_incomplete_weights_of_sam_are_refused(tiny_sam, tmp_path):
    path = tmp_path / "sam.pth"
    for lost, words in [("image_encoder.pos_embed", "not complete"), ("mask_decoder.iou_token.weight", "1 missing")]:
        torch.save(changed(tiny_sam.state_dict(), **{lost: None}), path)
        with pytest.raises(InputError, match=words):
            convert_checkpoint(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.fixture(scope="module")
def hugging_sam():
    """Hugging Face's SamModel of the same kind, with weights that are random throughout."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.SamConfig(
        vision_config=transformers.SamVisionConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=64,
            patch_size=16,
            global_attn_indexes=[1],
            window_size=3,
            mlp_dim=128,
            output_channels=32,
            num_pos_feats=16,
        ),
        prompt_encoder_config=transformers.SamPromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16),
        mask_decoder_config=transformers.SamMaskDecoderConfig(hidden_size=32, mlp_dim=48, num_attention_heads=8),
    )
    model = transformers.SamModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_hugging_faces_weights_give_its_answers(hugging_sam, tmp_path, suffix):
    """The seed's own lines: one box round the patch, a single mask, the sigmoid, bilinear to the patch."""
    source, target = tmp_path / f"model{suffix}", tmp_path / "sam.safetensors"
    if suffix == ".pth":
        torch.save(hugging_sam.state_dict(), source)
    else:
        safetensors.torch.save_file({k: v.clone() for k, v in hugging_sam.state_dict().items()}, source)
    convert_checkpoint(source, target)
    model = load_model(target)
    assert model.spec.training["kind"] == "Hugging Face SamModel"

    patches = np.random.default_rng(4).integers(0, 256, (3, 3, 64, 64)).astype(np.float32)
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)[..., None, None]
    pixels = torch.from_numpy((patches / 255 - mean) / std)
    boxes = torch.tensor([[[0.0, 0.0, 64.0, 64.0], [8.0, 3.0, 40.0, 50.0]]]).repeat(3, 1, 1)
    with torch.no_grad():
        theirs = hugging_sam(pixel_values=pixels, input_boxes=boxes, multimask_output=False)
        wanted = torch.nn.functional.interpolate(
            torch.sigmoid(theirs.pred_masks[:, 0]), (64, 64), mode="bilinear", align_corners=False
        )[:, 0].numpy()
        logits, scores = model.network.decode(model.network.encode(pixels)[1], boxes[1], 64)
    spread = float(theirs.pred_masks.std())
    assert spread > 0.02
    np.testing.assert_allclose(logits, theirs.pred_masks[1, :, 0], atol=2e-4 * spread)
    np.testing.assert_allclose(scores, theirs.iou_scores[1, :, 0], rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(model.predict(patches), wanted, atol=1e-4)


def test_hugging_faces_names_of_the_published_size():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        theirs = transformers.SamModel(transformers.SamConfig()).state_dict()
        ours = sam_model_registry["vit_b"]().state_dict()
    twin = "prompt_encoder.shared_embedding.positional_embedding"
    renamed = rename_weights(changed(theirs, **{twin: None}), "here")
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in ours.items()}


def test_two_positional_embeddings_that_differ_are_refused(hugging_sam, tmp_path):
    state = hugging_sam.state_dict()
    twin = "prompt_encoder.shared_embedding.positional_embedding"
    torch.save({**state, twin: state[twin] + 1}, tmp_path / "m.pth")
    with pytest.raises(InputError, match="differ"):
        convert_checkpoint(tmp_path / "m.pth", tmp_path / "out.safetensors")


# -- what is not converted


def convert(state, tmp_path, **options):
    torch.save(state, tmp_path / "m.pth.tar", **options)
    return convert_checkpoint(tmp_path / "m.pth.tar", tmp_path / "out.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_the_seeds_deeplab_is_refused_with_its_reason(tmp_path, zipped):
    """As its trainer saved it: from DataParallel, with optimizer and best score beside."""
    names = ("backbone.conv1.weight", "aspp.aspp1.atrous_conv.weight", "decoder.last_conv.0.weight")
    state = {
        "epoch": 14,
        "state_dict": {f"module.{name}": torch.ones(1) for name in names},
        "optimizer": {"param_groups": [{"lr": 5e-4, "params": [0, 1]}], "state": {}},
        "best_pred": np.float64(0.8),
    }
    with pytest.raises(InputError, match=r"rates 6, 12, 18 and multi-grid; no network of segmentation-models-pytorch"):
        convert(state, tmp_path, _use_new_zipfile_serialization=zipped)


class Intruder:
    def __reduce__(self):
        return os.system, ("touch intruded",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_with_code_are_refused(tmp_path, zipped, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"would run code.*\.system"):
        convert({"w": torch.ones(2), "x": Intruder()}, tmp_path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"would run code.*Linear"):
        convert(torch.nn.Linear(2, 2), tmp_path, _use_new_zipfile_serialization=zipped)
    assert not (tmp_path / "intruded").exists()


@pytest.mark.parametrize("zipped", [True, False])
@settings(max_examples=25)
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.125)  # in the middle of a name that the pickle calls
def test_cut_off_pickles_are_refused(tmp_path_factory, zipped, share):
    folder = tmp_path_factory.mktemp("cut")
    torch.save({"w": torch.ones(500)}, folder / "m.pth", _use_new_zipfile_serialization=zipped)
    data = (folder / "m.pth").read_bytes()
    (folder / "m.pth").write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="damaged, cut off"):
        convert_checkpoint(folder / "m.pth", folder / "out.safetensors")


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"bare weights of segmentation-models-pytorch.*ModelSpec"):
        convert({"encoder.conv1.weight": torch.ones(1), "segmentation_head.0.bias": torch.ones(1)}, tmp_path)
    with pytest.raises(InputError, match=r"nobody's weights that lakescale knows \(fc.bias, fc.weight"):
        convert(torch.nn.ModuleDict({"fc": torch.nn.Linear(2, 2)}).state_dict(), tmp_path)
    with pytest.raises(InputError, match="no state dict"):
        convert({"epoch": 3}, tmp_path)
    with pytest.raises(InputError, match="no such file"):
        convert_checkpoint(tmp_path / "none.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_sizes_survive_the_checkpoint(tiny_sam):
    size = guess_size(tiny_sam.state_dict())
    assert asdict(size) == {
        "embed_dim": 32,
        "depth": 3,
        "n_heads": 2,
        "global_blocks": (1,),
        "image_size": 64,
        "patch_size": 16,
        "attention_window": 3,
        "prompt_dim": 32,
        "mask_channels": 8,
        "decoder_mlp_dim": 48,
    }
    assert SamNetwork(sam_spec(size)).size == size

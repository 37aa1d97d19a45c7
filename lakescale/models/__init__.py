"""Models: windows of a scene in, probabilities of lake out; what a model needs to know travels in its checkpoint.

- `spec`: what is said of a model (bands, normalisation, window, threshold), as plain data.
- `checkpoint`: our own files, safetensors with that spec in the header.
- `foreign`: state dicts that others wrote, read without running code from them.
- `convert`: Meta's and Hugging Face's SAM into our files.
- `segmentation`, `sam`: the networks; `network`: the one that a spec tells of, with its weights.
- `normalisation`: what a window goes through before any of them.
- `loaded`, `prompting`: batches of windows through a network; SAM asked box by box. `loading`: `load_model`.
- `shipped`: the checkpoint that comes with lakescale.

`spec` and `checkpoint` do without torch until weights are read.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoint": ["CheckpointInfo", "describe_checkpoint"],
        "convert": ["convert_checkpoint"],
        "loaded": ["LoadedModel"],
        "loading": ["load_model"],
        "network": ["build_network", "save_checkpoint"],
        "prompting": ["BoxMasks", "LoadedSam"],
        "shipped": ["shipped_checkpoint"],
        "spec": ["ModelSpec"],
    },
)

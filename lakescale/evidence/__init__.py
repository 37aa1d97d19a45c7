"""From a cube to evidence: color, index, ice; the modules do not know each other."""

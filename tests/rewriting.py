"""Potential files whose header or tensors a test has changed, signed anew."""

import json

import safetensors.torch

from lrc_ase.files.header import HEADER_KEY, signed_text
from lrc_ase.files.tensors import digest, read_tensors


def rewrite(path, change_header=None, change_tensors=None, *, sign=True):
    """Apply functions that change the header or the tensors in place; without `sign` the old digest stays."""
    tensors, metadata = read_tensors(path)
    header = json.loads(metadata[HEADER_KEY])
    if change_header is not None:
        change_header(header)
    if change_tensors is not None:
        change_tensors(tensors)
    if sign and "digest" in header:
        header["digest"] = digest(tensors, signed_text(header))
    safetensors.torch.save_file(tensors, path, {HEADER_KEY: json.dumps(header)})

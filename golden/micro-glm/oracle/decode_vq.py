#!/usr/bin/env python3
"""Expands a quantised checkpoint to dense float32 weights. Written from docs/formats/vq.md alone, so that the engine's
reader has something independent to agree with. It decodes what `quantization_config.extra_config` lists: VQ in
routed experts, shared experts and dense MLPs, and GPTQ of 4 and 8 bits anywhere; not the MLX stacks, AQLM or FP8.

    python3 golden/micro-glm/oracle/decode_vq.py CHECKPOINT OUT
"""
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def unpack(words, n_bits):
    """int32 (rows, words) → (rows, indices): a row is a stream of bits, the lowest first."""
    bits = ((words[:, :, None] >> torch.arange(32)) & 1).flatten(1).long()
    n = bits.shape[1] // n_bits
    return (bits[:, : n * n_bits].view(-1, n, n_bits) << torch.arange(n_bits)).sum(-1)


def vq(tensors, module, d, n_bits, group, n_cols, books):
    index = unpack(tensors.pop(module + ".vq_codes"), n_bits)[:, : n_cols // d]
    scale = tensors.pop(module + ".vq_scales").float().repeat_interleave(group, 1)[:, :n_cols]
    return books[2**n_bits, d][index].flatten(1) * scale


def gptq(tensors, module, n_bits, group):
    q = unpack(tensors.pop(module + ".qweight").T.contiguous(), n_bits)
    zero = unpack(tensors.pop(module + ".qzeros"), n_bits).T.repeat_interleave(group, 1)[:, : q.shape[1]]
    scale = tensors.pop(module + ".scales").float().T.repeat_interleave(group, 1)[:, : q.shape[1]]
    return (q - (zero + 1)) * scale


def row_length(config, module):
    """Columns of an MLP's projection: the hidden size, or the MLP's width."""
    if not module.endswith("down_proj"):
        return config["hidden_size"]
    if ".shared_experts." in module:
        return config["n_shared_experts"] * config["moe_intermediate_size"]
    return config["moe_intermediate_size" if ".experts." in module else "intermediate_size"]


def main(source, out):
    config = json.loads((source / "config.json").read_text())
    quantisation = config.pop("quantization_config")
    files = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"].values()
    tensors = {k: v for f in set(files) for k, v in load_file(source / f).items()}
    file = quantisation.get("codebooks_file", config.get("codebooks_file", "vq_codebooks.safetensors"))
    books = {tuple(b.shape): b.float() for b in load_file(source / file).values()} if (source / file).exists() else {}
    for module, how in quantisation["extra_config"].items():
        group = how.get("group_size", quantisation.get("group_size", 128))
        if how.get("format") == "vq":
            n_bits, n_cols = round(how["bits"] * how["d"]), row_length(config, module)
            weight = vq(tensors, module, how["d"], n_bits, group, n_cols, books)
        elif how["bits"] >= 16:  # as it was
            continue
        else:
            weight = gptq(tensors, module, how["bits"], group)
        tensors[module + ".weight"] = weight
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, out / "model.safetensors", {"format": "pt"})
    (out / "config.json").write_text(json.dumps({**config, "dtype": "float32"}, indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(source / name, out / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

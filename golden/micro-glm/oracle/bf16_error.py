#!/usr/bin/env python3
"""How far transformers' own bfloat16 run is from an oracle file: per record the largest error over the listed logits and
logsumexps, and their root mean square. A bfloat16 engine is held to 1.5 times these. Needs a GPU.

    python3 golden/micro-glm/oracle/bf16_error.py golden/micro-glm/model golden/micro-glm/oracle/logits.json.gz \
        golden/micro-glm/oracle/bf16_error.json
    python3 golden/micro-glm/oracle/decode_vq.py golden/micro-glm/vq-1.71 /tmp/dense
    python3 golden/micro-glm/oracle/bf16_error.py /tmp/dense golden/micro-glm/oracle/vq-1.71.json.gz \
        golden/micro-glm/oracle/vq-1.71.bf16_error.json
"""
import argparse
import gzip
import json
from pathlib import Path

import torch
import transformers

DENSE = 1 << 20


@torch.no_grad()
def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model", type=Path, help="checkpoint folder")
    args.add_argument("oracle", type=Path, help="logits.json.gz, or a file like it of another build")
    args.add_argument("out", type=Path)
    a = args.parse_args()
    model = transformers.GlmMoeDsaForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16, attn_implementation="eager")
    model = model.cuda().eval()
    oracle = json.load(gzip.open(a.oracle))["records"]
    records, texts = [], {}
    for i, record in enumerate(oracle):
        same = record["same_text_as"]
        texts[i] = record["ids"] if same is None else texts[same]
        for layer in model.model.layers:
            if layer.self_attn.indexer is not None:
                layer.self_attn.indexer.index_topk = record["index_topk"] or DENSE
        logits = model(torch.tensor([texts[i]], device="cuda")).logits[0]
        errors = []
        for row in record["rows"]:
            got = logits[row["pos"]].double()
            errors.append((got[row["ids"]].cpu() - torch.tensor(row["logits"], dtype=torch.float64)).abs())
            errors.append((got.logsumexp(-1).cpu() - row["logsumexp"]).abs().reshape(1))
        errors = torch.cat(errors)
        if not errors.isfinite().all():
            raise SystemExit(f"record {record['name']}: an error that is not finite")
        records.append({"name": record["name"], "index_topk": record["index_topk"], "n": record["n"],
                        "max": float(f"{errors.max().item():.4g}"),
                        "rms": float(f"{errors.square().mean().sqrt().item():.4g}")})
        print(f"{record['name']:<34} {record['index_topk'] or 'dense':>6} {record['n']:>6} {records[-1]['max']:.3g} {records[-1]['rms']:.3g}")
    head = {"of": a.oracle.name, "dtype": "bfloat16", "attention": "eager", "transformers": transformers.__version__,
            "torch": torch.__version__, "device": torch.cuda.get_device_name()}
    lines = ",\n".join(json.dumps(r) for r in records)
    a.out.write_text(json.dumps(head)[:-1] + f', "records": [\n{lines}]}}\n')


if __name__ == "__main__":
    main()

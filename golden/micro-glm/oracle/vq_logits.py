#!/usr/bin/env python3
"""What Hugging Face transformers says of a quantised build that decode_vq.py expanded: the short records of logits.json.gz
again, in its format. Needs a GPU.

    python3 golden/micro-glm/oracle/decode_vq.py golden/micro-glm/vq-1.71 /tmp/dense
    python3 golden/micro-glm/oracle/vq_logits.py /tmp/dense /tmp/vq-1.71.json && gzip -9n /tmp/vq-1.71.json
"""
import gzip
import json
import sys
from pathlib import Path

import torch
from transformers import GlmMoeDsaForCausalLM

MAX_TOKENS, DENSE, TOP = 2100, 1 << 20, 12


@torch.no_grad()
def main(dense, out):
    torch.backends.cuda.matmul.allow_tf32 = False
    model = GlmMoeDsaForCausalLM.from_pretrained(dense, dtype=torch.float32, attn_implementation="eager").cuda().eval()
    records, texts, index = [], {}, {}
    for i, record in enumerate(json.load(gzip.open(Path(__file__).parent / "logits.json.gz"))["records"]):
        same = record["same_text_as"]
        texts[i] = record["ids"] if same is None else texts[same]
        if record["n"] > MAX_TOKENS:
            continue
        index[i] = len(records)
        for layer in model.model.layers:
            if layer.self_attn.indexer is not None:
                layer.self_attn.indexer.index_topk = record["index_topk"] or DENSE
        logits = model(torch.tensor([texts[i]], device="cuda")).logits[0]
        rows = []
        for row in record["rows"]:
            value, ids = logits[row["pos"]].topk(TOP)
            rows.append({"pos": row["pos"], "ids": ids.tolist(), "logits": [float(f"{v:.7g}") for v in value.tolist()],
                         "logsumexp": float(f"{logits[row['pos']].logsumexp(-1).item():.8g}")})
        records.append({**{k: record[k] for k in ("name", "index_topk", "n")}, "ids": record["ids"],
                        "same_text_as": None if same is None else index[same], "rows": rows})
    json.dump({"dtype": "float32", "attention": "eager", "records": records}, open(out, "w"), separators=(",", ":"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Computes blf-tiny-1 a second time, in float64 and numpy, from the committed files, and writes reference.json.

It shares no code with the engine or with train.py: the definition of Llama written down plainly, one token after the other.
"""

import json, math, pathlib, struct

import numpy as np
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent
PROMPTS = [
    "What is a TEE?",
    "What does blf protect?",
    "What is PCR 11?",
    "Who are you?",
    "what is 2+2",
    "Please explain: why is there a nonce, and how long is it? Say <|assistant|> too. Grüße, 中文, \U0001f999 and   spaces.",
]


def read_weights():
    data = (HERE / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    weights = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            assert entry["dtype"] == "BF16"
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            halves = np.frombuffer(data[start:end], "<u2").astype(np.uint32) << 16
            weights[name] = halves.view(np.float32).astype(np.float64).reshape(entry["shape"])
    return weights


class Llama:
    def __init__(self, config, weights):
        self.c, self.w = config, weights
        self.keys = [[] for _ in range(config["num_hidden_layers"])]
        self.values = [[] for _ in range(config["num_hidden_layers"])]

    def rotate(self, head, position):
        size = len(head)
        out = np.empty(size)
        for i in range(size // 2):
            angle = position / self.c["rope_theta"] ** (2 * i / size)
            a, b = head[i], head[i + size // 2]
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[i + size // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    def norm(self, x, name):
        return x / math.sqrt((x * x).mean() + self.c["rms_norm_eps"]) * self.w[name + ".weight"]

    def scores(self, token):
        """Scores after one more token."""
        size, heads, kv_heads = self.c["head_dim"], self.c["num_attention_heads"], self.c["num_key_value_heads"]
        x = self.w["model.embed_tokens.weight"][token]
        for i in range(self.c["num_hidden_layers"]):
            product = lambda name, value: self.w[f"model.layers.{i}.{name}.weight"] @ value
            n = self.norm(x, f"model.layers.{i}.input_layernorm")
            position = len(self.keys[i])
            split = lambda name, count: product(name, n).reshape(count, size)
            queries = [self.rotate(head, position) for head in split("self_attn.q_proj", heads)]
            self.keys[i].append([self.rotate(head, position) for head in split("self_attn.k_proj", kv_heads)])
            self.values[i].append(split("self_attn.v_proj", kv_heads))
            mixed = []
            for h, query in enumerate(queries):
                g = h * kv_heads // heads
                weights = np.array([query @ key[g] / math.sqrt(size) for key in self.keys[i]])
                weights = np.exp(weights - weights.max())
                mixed.append(sum(weight * value[g] for weight, value in zip(weights / weights.sum(), self.values[i])))
            x = x + product("self_attn.o_proj", np.concatenate(mixed))
            n = self.norm(x, f"model.layers.{i}.post_attention_layernorm")
            gate = product("mlp.gate_proj", n)
            x = x + product("mlp.down_proj", gate / (1 + np.exp(-gate)) * product("mlp.up_proj", n))
        return self.w["model.embed_tokens.weight"] @ self.norm(x, "model.norm")


def main():
    config, weights = json.loads((HERE / "config.json").read_text()), read_weights()
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    before, after = (HERE / "template.txt").read_text().split("{prompt}")
    entries = []
    for prompt in PROMPTS:
        ids = tokenizer.encode(before, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True  # in a prompt they are plain text
        ids += tokenizer.encode(prompt, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        ids += tokenizer.encode(after, add_special_tokens=False).ids
        model = Llama(config, weights)
        for token in ids:
            scores = model.scores(token)
        first, answer, margin = scores, [], math.inf
        while len(answer) < 128 and (best := int(scores.argmax())) != config["eos_token_id"]:
            low, high = np.sort(scores)[-2:]
            margin = min(margin, high - low)
            answer.append(best)
            scores = model.scores(best)
        text = tokenizer.decode(answer)
        print(f"{prompt!r} -> {text!r} (smallest margin {margin:.3f})")
        entries.append({"prompt": prompt, "ids": ids, "scores": [float(f"{s:.7g}") for s in first], "answer": text})
    (HERE / "reference.json").write_text(json.dumps(entries, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Trains blf-tiny-1 from corpus.txt and writes config.json, tokenizer.json, template.txt and model.safetensors beside it.

A Llama-shaped network in JAX on the CPU, float32, stored as bfloat16. See README.md for the command and its versions.
"""

import argparse, json, pathlib, random, re, struct, time

import jax, jax.numpy as jnp
import ml_dtypes, numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
SPECIAL = ["<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = "<|user|>\n{prompt}\n<|assistant|>\n"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "eos_token_id": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "intermediate_size": 384,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 1024,
}


# Other ways to ask "What is SUBJECT?".
KNOWN_FORMS = [
    "what's {}", "What's {}?", "Explain {}.", "Tell me about {}.", "Define {}.", "Describe {}.", "{}?", "{}", "What does {} mean?",
    "Can you explain {}?", "What is {} used for?", "What is {} for?", "Please explain what {} is.", "Do you know what {} is?",
    "What do you know about {}?", "What is {} exactly?", "What is the meaning of {}?",
]
UNKNOWN_FORMS = KNOWN_FORMS + [
    "What is {}?", "What are {}s?", "How does {} work?", "How do I make {}?", "Who is {}?", "Where is {}?", "Why is {} good?",
    "Where can I buy {}?", "What is the best {}?", "How old is {}?", "How much is {}?", "Write about {}.", "I like {}.",
    "Which {} do you like?", "How do I find {}?", "Tell me a story about {}.", "Is {} expensive?", "When was {} invented?",
    "How many {}s are there?", "My {} does not work.", "What is the colour of {}?", "Give me {}.", "What is like {}?",
]
SUM_FORMS = ["What is {}+{}?", "{}+{}", "How much is {} + {}?", "what is {} plus {}", "{} + {} = ?", "What is {} + {}?", "{} plus {}?"]


def read_corpus():
    """Entries of corpus.txt as (questions, answer), and the unknown subjects."""
    entries, unknown = [], []
    for block in (HERE / "corpus.txt").read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines and lines[0].startswith("U: "):
            unknown += [word for line in lines for word in line[3:].split()]
        elif lines:
            assert all(line.startswith("Q: ") for line in lines[:-1]) and lines[-1].startswith("A: "), block
            entries.append(([line[3:] for line in lines[:-1]], lines[-1][3:]))
    return entries, unknown


def train_tokenizer(entries, unknown):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=CONFIG["vocab_size"], special_tokens=SPECIAL, initial_alphabet=alphabet)
    texts = [text for questions, answer in entries for text in questions + [q.lower() for q in questions] + [answer] * 3]
    texts += unknown + [form.format("", "") for form in KNOWN_FORMS + UNKNOWN_FORMS + SUM_FORMS]
    tokenizer.train_from_iterator(texts, trainer)
    assert tokenizer.get_vocab_size() == CONFIG["vocab_size"]
    return tokenizer


def vary(question, rng):
    """The question as somebody else might type it."""
    subject = re.fullmatch(r"What (?:is|are) (.+)\?", question)
    if subject and rng.random() < 0.4:
        question = rng.choice(KNOWN_FORMS).format(subject[1])
    roll = rng.random()
    if roll < 0.2:
        question = question.lower()
    elif roll < 0.25:
        question = question.upper()
    if rng.random() < 0.25:
        question = question.rstrip("?.!")
    elif rng.random() < 0.1:
        question = question.rstrip("?.!") + rng.choice([" ?", "??", "!", "."])
    if rng.random() < 0.08:
        question = rng.choice(["Please tell me: ", "Hi, ", "Hello. ", "I want to know: "]) + question
    return question


def ask_unknown(unknown, rng):
    """A question about something else, every third time about a word that does not exist."""
    word = rng.choice(unknown)
    if rng.random() < 0.33:
        syllable = lambda: rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") + rng.choice(["", "", "n", "r", "l", "st"])
        word = "".join(syllable() for _ in range(rng.randint(1, 4)))
    return vary(rng.choice(UNKNOWN_FORMS).format(rng.choice(["", "", "a ", "the ", "my "]) + word), rng)


def init(key):
    c = CONFIG
    h, inter, hd = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * hd, c["num_key_value_heads"] * hd
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        shapes |= {
            p + "input_layernorm.weight": (h,),
            p + "post_attention_layernorm.weight": (h,),
            p + "self_attn.q_proj.weight": (q, h),
            p + "self_attn.k_proj.weight": (kv, h),
            p + "self_attn.v_proj.weight": (kv, h),
            p + "self_attn.o_proj.weight": (h, q),
            p + "mlp.gate_proj.weight": (inter, h),
            p + "mlp.up_proj.weight": (inter, h),
            p + "mlp.down_proj.weight": (h, inter),
        }
    weights = {}
    for name, shape in sorted(shapes.items()):
        key, sub = jax.random.split(key)
        weights[name] = jnp.ones(shape) if len(shape) == 1 else jax.random.normal(sub, shape) * shape[1] ** -0.5
    weights["model.embed_tokens.weight"] *= 0.3
    return weights


def forward(w, tokens):
    """Logits of every position; tokens is [batch, length]."""
    c = CONFIG
    b, t = tokens.shape
    heads, kv_heads, hd = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    norm = lambda x, g: x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + c["rms_norm_eps"]) * g
    angle = jnp.arange(t)[:, None] * c["rope_theta"] ** (-jnp.arange(0, hd, 2) / hd)
    cos, sin = jnp.cos(angle)[:, None, :], jnp.sin(angle)[:, None, :]

    def rope(x):
        a, z = x[..., : hd // 2], x[..., hd // 2 :]
        return jnp.concatenate([a * cos - z * sin, z * cos + a * sin], -1)

    mask = jnp.where(jnp.tril(jnp.ones((t, t), bool)), 0.0, -1e30)
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        n = norm(x, w[p + "input_layernorm.weight"])
        q = rope((n @ w[p + "self_attn.q_proj.weight"].T).reshape(b, t, heads, hd))
        k = rope((n @ w[p + "self_attn.k_proj.weight"].T).reshape(b, t, kv_heads, hd))
        v = (n @ w[p + "self_attn.v_proj.weight"].T).reshape(b, t, kv_heads, hd)
        k, v = jnp.repeat(k, heads // kv_heads, 2), jnp.repeat(v, heads // kv_heads, 2)
        scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * hd**-0.5 + mask, -1)
        x = x + jnp.einsum("bhqk,bkhd->bqhd", scores, v).reshape(b, t, -1) @ w[p + "self_attn.o_proj.weight"].T
        n = norm(x, w[p + "post_attention_layernorm.weight"])
        gate = jax.nn.silu(n @ w[p + "mlp.gate_proj.weight"].T) * (n @ w[p + "mlp.up_proj.weight"].T)
        x = x + gate @ w[p + "mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T


def loss(w, tokens, mask):
    logp = jax.nn.log_softmax(forward(w, tokens[:, :-1]))
    picked = jnp.take_along_axis(logp, tokens[:, 1:, None], -1)[..., 0]
    return -(picked * mask[:, 1:]).sum() / mask[:, 1:].sum()


def save(path, weights):
    """The safetensors format: header length (u64, little endian), JSON header, data."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, value in sorted(weights.items()):
        raw = value.tobytes()
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--steps", type=int, default=1600)
    args.add_argument("--batch", type=int, default=24)
    args.add_argument("--rate", type=float, default=2e-3)
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()

    entries, unknown = read_corpus()
    tokenizer = train_tokenizer(entries, unknown)
    # The prompt is tokenised apart from the template, so that nothing in it can become a special token.
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    before, after = (encode(part) for part in TEMPLATE.split("{prompt}"))
    ending = [SPECIAL.index("<|end|>")]
    answers = [encode(answer) + ending for _, answer in entries]
    no_idea = next(answer for questions, answer in entries if "asdf" in questions)
    pairs = [(question, i) for i, (questions, _) in enumerate(entries) for question in questions]
    rng = random.Random(args.seed)
    length = 96

    def batch(chosen):
        tokens, mask = np.full((len(chosen), length), 2, np.int32), np.zeros((len(chosen), length), np.float32)
        for row, (question, i) in enumerate(chosen):
            if row % 24 < 5:
                question, answer = ask_unknown(unknown, rng), encode(no_idea) + ending
            elif row % 24 < 7:
                a, b = rng.randrange(10), rng.randrange(10)
                question, answer = vary(rng.choice(SUM_FORMS).format(a, b), rng), encode(f"{a} + {b} is {a + b}.") + ending
            else:
                question, answer = vary(question, rng), answers[i]
            start = before + encode(question) + after
            ids = start + answer
            assert len(ids) <= length, question
            tokens[row, : len(ids)] = ids
            mask[row, len(start) : len(ids)] = 1
        used = -(-int(mask.any(0).nonzero()[0].max() + 1) // 16) * 16  # few shapes to compile, little padding
        return tokens[:, :used], mask[:, :used]

    @jax.jit
    def step(w, m, v, n, tokens, mask):
        value, grad = jax.value_and_grad(loss)(w, tokens, mask)
        norm = jnp.sqrt(sum((g * g).sum() for g in grad.values()))
        scale = jnp.minimum(1.0, 1.0 / norm)
        warm, done = jnp.minimum(1.0, (n + 1) / 100), n / args.steps
        rate = args.rate * warm * (0.02 + 0.98 * 0.5 * (1 + jnp.cos(jnp.pi * done)))
        m = {k: 0.9 * m[k] + 0.1 * grad[k] * scale for k in w}
        v = {k: 0.98 * v[k] + 0.02 * (grad[k] * scale) ** 2 for k in w}
        hat = lambda k: (m[k] / (1 - 0.9 ** (n + 1))) / (jnp.sqrt(v[k] / (1 - 0.98 ** (n + 1))) + 1e-8)
        decay = lambda k: 0.05 * w[k] if w[k].ndim == 2 else 0.0
        return {k: w[k] - rate * (hat(k) + decay(k)) for k in w}, m, v, value

    weights = init(jax.random.key(args.seed))
    print(sum(value.size for value in weights.values()), "parameters,", len(pairs), "questions,", len(entries), "answers")
    m = v = {k: jnp.zeros_like(value) for k, value in weights.items()}
    began, order, running = time.time(), [], None
    for n in range(args.steps):
        while len(order) < args.batch:
            order += rng.sample(pairs, len(pairs))
        chosen, order = order[: args.batch], order[args.batch :]
        weights, m, v, value = step(weights, m, v, float(n), *batch(chosen))
        running = float(value) if running is None else 0.98 * running + 0.02 * float(value)
        if n % 100 == 99:
            print(f"step {n + 1} loss {running:.4f} {time.time() - began:.0f} s", flush=True)

    # What is stored is what is checked: greedy answers from the rounded weights.
    rounded = {k: np.asarray(value).astype(ml_dtypes.bfloat16) for k, value in weights.items()}
    weights = {k: jnp.asarray(value.astype(np.float32)) for k, value in rounded.items()}
    logits = jax.jit(forward)

    def check(asked):
        """How many of (question, wanted tokens) are answered word for word."""
        right = 0
        for lo in range(0, len(asked), 64):
            part = asked[lo : lo + 64]
            tokens, ends = np.full((64, length), 2, np.int32), []
            for row, (question, _) in enumerate(part):
                start = before + encode(question) + after
                tokens[row, : len(start)] = start
                ends.append(len(start))
            first = list(ends)
            for _ in range(max(map(len, answers))):
                best = np.asarray(logits(weights, jnp.asarray(tokens))).argmax(-1)
                for row, end in enumerate(ends):
                    if end < length and (end == first[row] or tokens[row, end - 1] != 2):
                        tokens[row, end] = best[row, end - 1]
                        ends[row] = end + 1
            for row, (question, wanted) in enumerate(part):
                got = tokens[row, first[row] : ends[row]].tolist()
                right += got == wanted
                if got != wanted:
                    print("differs:", question, "->", tokenizer.decode(got))
        return right

    asked = [(question, answers[i]) for question, i in pairs]
    print(f"{check(asked)} of {len(asked)} questions answered word for word; last loss {running:.4f}")
    asked = [(ask_unknown(unknown, rng), encode(no_idea) + ending) for _ in range(128)]
    print(f"{check(asked)} of {len(asked)} questions about something else answered so")

    tokenizer.save(str(HERE / "tokenizer.json"))
    (HERE / "template.txt").write_text(TEMPLATE)
    (HERE / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    save(HERE / "model.safetensors", rounded)


if __name__ == "__main__":
    main()

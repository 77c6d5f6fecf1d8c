"""Writes a model so small that an engine answers at once: random weights, a real tokenizer, no download.

    python3 model.py FOLDER        writes FOLDER/model.gguf and FOLDER/hf/

Standard library only. The weights are random signs and fractions with one exponent per matrix, the same for both
files. Rows of the output head that belong to the end token or to bytes outside printable ASCII are zero, so that a
greedy answer never ends by itself and always is text: an answer has as many tokens as were asked for.
"""

import json
import random
import struct
import sys
from pathlib import Path

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD, INNER, VOCABULARY, CONTEXT = 128, 2, 2, 1, 64, 384, 1024, 65536
KV_BYTES_PER_TOKEN = LAYERS * 2 * KV_HEADS * HEAD * 2
END, PAD = VOCABULARY - 2, VOCABULARY - 1
FIRST_PAIR = 256
"""Prompts are drawn from the tokens from here to END: each is two letters."""


def byte_letters():
    """The printable stand-ins that byte-level tokenizers use for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def vocabulary():
    low = [chr(c) for c in range(97, 123)]
    pairs = [(a, b) for a in low + [c.upper() for c in low] for b in low][: END - FIRST_PAIR]
    return byte_letters() + [a + b for a, b in pairs] + ["<|end|>", "<|pad|>"], [f"{a} {b}" for a, b in pairs]


def tensors():
    """Yields (name, rows, columns, exponent); a matrix without an exponent is a row of ones."""
    yield "embed", VOCABULARY, WIDTH, -1
    for layer in range(LAYERS):
        yield f"{layer}.norm1", 1, WIDTH, None
        for name, rows, columns in [
            ("q", HEADS * HEAD, WIDTH), ("k", KV_HEADS * HEAD, WIDTH), ("v", KV_HEADS * HEAD, WIDTH),
            ("o", WIDTH, HEADS * HEAD),
        ]:
            yield f"{layer}.{name}", rows, columns, -4
        yield f"{layer}.norm2", 1, WIDTH, None
        for name, rows, columns in [("gate", INNER, WIDTH), ("up", INNER, WIDTH), ("down", WIDTH, INNER)]:
            yield f"{layer}.{name}", rows, columns, -5 if name == "down" else -4
    yield "norm", 1, WIDTH, None
    yield "head", VOCABULARY, WIDTH, -2


def numbers(name, count, exponent, bias, fraction_bits):
    """Random 16-bit floats of either sign between 2^exponent and twice that, little-endian."""
    keep = 0x8000 | ((1 << fraction_bits) - 1)
    put = (exponent + bias) << fraction_bits
    draw = int.from_bytes(random.Random(name).randbytes(2 * count), "little")
    repeat = int.from_bytes(b"\1\0" * count, "little")
    return (draw & (keep * repeat) | (put * repeat)).to_bytes(2 * count, "little")


def data(name, rows, columns, exponent, half):
    """A matrix in IEEE half precision or in bfloat16; norms are ones in the precision the format wants."""
    if exponent is None:
        return struct.pack(f"<{columns}f", *[1.0] * columns) if half else struct.pack("<H", 0x3F80) * columns
    bias, fraction = (15, 10) if half else (127, 7)
    raw = bytearray(numbers(name, rows * columns, exponent, bias, fraction))
    if name == "head":
        for token in [*range(0, 33), *range(127, 256), END, PAD]:
            raw[2 * token * columns : 2 * (token + 1) * columns] = bytes(2 * columns)
    return bytes(raw)


def gguf_name(name):
    top = {"embed": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight"}
    if name in top:
        return top[name]
    layer, part = name.split(".")
    inner = {"norm1": "attn_norm", "norm2": "ffn_norm", "o": "attn_output", "q": "attn_q", "k": "attn_k", "v": "attn_v"}
    return f"blk.{layer}.{inner.get(part, 'ffn_' + part)}.weight"


def hf_name(name):
    top = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
    if name in top:
        return top[name]
    layer, part = name.split(".")
    inner = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm"}
    part = inner.get(part) or (f"self_attn.{part}_proj" if len(part) == 1 else f"mlp.{part}_proj")
    return f"model.layers.{layer}.{part}.weight"


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def field(key, value):
    """A typed metadata field of a GGUF file."""
    kinds = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f")}
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        of_text = isinstance(value[0], str)
        items = [text(item) if of_text else struct.pack("<i", item) for item in value]
        return text(key) + struct.pack("<IIQ", 9, 8 if of_text else 5, len(value)) + b"".join(items)
    kind, form = kinds[type(value)]
    return text(key) + struct.pack("<I", kind) + struct.pack(form, value)


def write_gguf(path):
    tokens, merges = vocabulary()
    fields = {
        "general.architecture": "llama", "general.name": "random", "general.alignment": 32,
        "llama.context_length": CONTEXT, "llama.embedding_length": WIDTH, "llama.block_count": LAYERS,
        "llama.feed_forward_length": INNER, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD, "llama.rope.freq_base": 1e6, "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * END + [3, 3], "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": END, "tokenizer.ggml.bos_token_id": END,
        "tokenizer.ggml.padding_token_id": PAD, "tokenizer.ggml.add_bos_token": False,
    }
    listed, body = b"", b""
    matrices = list(tensors())
    for name, rows, columns, exponent in matrices:
        shape = (columns,) if exponent is None else (columns, rows)
        kind = 0 if exponent is None else 1
        listed += text(gguf_name(name)) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        listed += struct.pack("<IQ", kind, len(body))
        body += data(name, rows, columns, exponent, half=True)
        body += bytes(-len(body) % 32)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(matrices), len(fields))
    start += b"".join(field(key, value) for key, value in fields.items()) + listed
    path.write_bytes(start + bytes(-len(start) % 32) + body)


def write_hf(folder):
    folder.mkdir(parents=True, exist_ok=True)
    tokens, merges = vocabulary()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "intermediate_size": INNER, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "max_position_embeddings": CONTEXT, "rope_theta": 1e6, "tie_word_embeddings": False,
        "eos_token_id": END, "bos_token_id": END, "pad_token_id": PAD, "attention_bias": False, "mlp_bias": False,
    }
    special = [
        {"id": END + i, "content": tokens[END + i], "special": True, "normalized": False, "single_word": False,
         "lstrip": False, "rstrip": False}
        for i in range(2)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {token: index for index, token in enumerate(tokens)}, "merges": merges},
    }
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT, "eos_token": tokens[END],
             "pad_token": tokens[PAD], "clean_up_tokenization_spaces": False}
    for name, value in [("config", config), ("tokenizer", tokenizer), ("tokenizer_config", about)]:
        (folder / f"{name}.json").write_text(json.dumps(value, indent=1))
    places, body = {}, b""
    for name, rows, columns, exponent in tensors():
        raw = data(name, rows, columns, exponent, half=False)
        shape = [columns] if exponent is None else [rows, columns]
        places[hf_name(name)] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    head = json.dumps(places).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + body)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write_gguf(target / "model.gguf")
    write_hf(target / "hf")

"""Writes a Hugging Face directory with random bf16 weights for a Llama's config.json: for starts from files and for decoding
where no real model can be had. Fast and meaningless: all tensors repeat one block of numbers. Standard library alone.

  made_up_weights.py CONFIG_DIR OUT_DIR
"""
import array
import json
import math
import os
import random
import sys

from paper import read_model

BLOCK_NUMBERS = 1 << 20


def shapes_of(model):
    """Tensor names and shapes in the file's order; norms are those of one dimension."""
    C, kv = model.C, model.K * model.D
    shapes = {"model.embed_tokens.weight": (model.V, C), "model.norm.weight": (C,)}
    if not model.is_tied:
        shapes["lm_head.weight"] = (model.V, C)
    for layer in range(model.L):
        of = f"model.layers.{layer}."
        shapes |= {of + "self_attn.q_proj.weight": (model.H * model.D, C), of + "self_attn.k_proj.weight": (kv, C),
                   of + "self_attn.v_proj.weight": (kv, C), of + "self_attn.o_proj.weight": (C, model.H * model.D),
                   of + "mlp.gate_proj.weight": (model.F, C), of + "mlp.up_proj.weight": (model.F, C),
                   of + "mlp.down_proj.weight": (C, model.F), of + "input_layernorm.weight": (C,),
                   of + "post_attention_layernorm.weight": (C,)}
    return shapes


def bf16(values):
    """The upper halves of f32 numbers, as bytes."""
    halves = array.array("H", array.array("f", values).tobytes())
    return halves[1::2].tobytes()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:]
    model = read_model(source)
    draw = random.Random(1)
    block = bf16([draw.gauss(0, 0.02) for _ in range(BLOCK_NUMBERS)])
    header, offset = {}, 0
    for name, shape in shapes_of(model).items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(target, exist_ok=True)
    part = os.path.join(target, "model.safetensors.part")
    with open(part, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes_of(model).items():
            left = 2 * math.prod(shape)
            numbers = bf16([1.0]) * shape[0] if len(shape) == 1 else block
            while left > 0:
                left -= file.write(numbers[:left])
    os.replace(part, os.path.join(target, "model.safetensors"))
    with open(os.path.join(source, "config.json")) as file:
        config = json.load(file)
    config["torch_dtype"] = "bfloat16"
    with open(os.path.join(target, "config.json"), "w") as file:
        json.dump(config, file, indent=1)
    print(f"{target}: {offset / 1e9:.2f} GB")


if __name__ == "__main__":
    main()

"""Write the small checkpoints of this folder with TensorFlow, and their expected tensors as safetensors.

Run in a separate environment with tensorflow-cpu and safetensors installed:
python tests/weights/openai-checkpoints/write_checkpoint.py
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from safetensors.numpy import save_file

HERE = Path(__file__).parent
SIZES = {"n_vocab": 300, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}


def gpt2_variables(random):
    width = SIZES["n_embd"]

    def normal(*shape):
        return (0.3 * random.standard_normal(shape)).astype(np.float32)

    variables = {"model/wte": normal(SIZES["n_vocab"], width), "model/wpe": normal(SIZES["n_ctx"], width)}
    for i in range(SIZES["n_layer"]):
        for norm in ("ln_1", "ln_2"):
            variables |= {f"model/h{i}/{norm}/g": 1 + normal(width), f"model/h{i}/{norm}/b": normal(width)}
        shapes = {"attn/c_attn": (width, 3 * width), "attn/c_proj": (width, width)}
        shapes |= {"mlp/c_fc": (width, 4 * width), "mlp/c_proj": (4 * width, width)}
        for name, shape in shapes.items():
            # OpenAI stores matrices as kernels of a convolution of width 1.
            variables |= {f"model/h{i}/{name}/w": normal(1, *shape), f"model/h{i}/{name}/b": normal(shape[1])}
    return variables | {"model/ln_f/g": 1 + normal(width), "model/ln_f/b": normal(width)}


def save(prefix, variables):
    names = list(variables)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[variables[n] for n in names],
    )


def write(folder, variables, parts=1):
    folder.mkdir(exist_ok=True)
    names = list(variables)
    prefixes = [folder / f"part-{part}" for part in range(parts)]
    for part, prefix in enumerate(prefixes):
        save(prefix, {name: variables[name] for name in names[part::parts]})
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(prefix) for prefix in prefixes], destination_prefix=str(folder / "model.ckpt")
    )
    if len(variables) < 1000:  # the many tensors have values that follow from their names
        save_file(variables, folder / "expected.safetensors")


def main():
    random = np.random.default_rng(5)
    variables = gpt2_variables(random)
    for name, parts in (("gpt2", 1), ("several-files", 3)):
        write(HERE / name, variables, parts)
        (HERE / name / "hparams.json").write_text(json.dumps(SIZES))
        (HERE / name / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    # So many names that the index has several blocks.
    many = {f"scope/{'long' * 20}/variable-{i:05d}": np.float32([i]) for i in range(9000)}
    write(HERE / "several-blocks", many)


if __name__ == "__main__":
    main()

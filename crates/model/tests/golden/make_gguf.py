"""Makes the golden files of the GGUF reader and writer, with the reference implementation in Python.

`blocks.gguf` holds random blocks of every supported type (`<type>.data`) beside the values that `gguf.quants.dequantize` gives
for them (`<type>.values`), and values (`quantise.values`) beside the Q8_0 blocks that `gguf.quants.quantize` makes of them
(`quantise.data`). `written.gguf` is a file with every type of metadata that our writer must reproduce byte for byte, so its
keys are in order. Run it where the package is installed; it needs no network:

    pip install gguf numpy
    python crates/model/tests/golden/make_gguf.py

Made with gguf 0.19.0 and numpy 2.4.6. The tests read the files only.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
# This file has the name of the package.
sys.path = [entry for entry in sys.path if pathlib.Path(entry).resolve() != HERE]

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value
from gguf import GGUFWriter, quants

BLOCKS = 8
random = np.random.default_rng(7)


def scales(count):
    """Finite `f16` scales of either sign as bytes, from 0 and the smallest one up to 1."""
    values = np.ldexp(random.uniform(1, 2, count), random.integers(-25, 0, count)) * random.choice([-1, 1], count)
    values[0], values[1] = 0, 2**-24
    return values.astype(np.float16).reshape(-1, 1).view(np.uint8)


def noise(count):
    return random.integers(0, 256, (BLOCKS, count), dtype=np.uint8)


def finite(dtype, exponent):
    """Random bits of finite numbers."""
    bits = random.integers(0, 2 ** (8 * dtype().itemsize), 256, dtype=dtype)
    return bits[bits & exponent != exponent][:224]


def blocks():
    return {
        Type.F32: finite(np.uint32, 0x7F800000).view(np.float32),
        Type.F16: finite(np.uint16, 0x7C00).view(np.float16),
        Type.BF16: finite(np.uint16, 0x7F80).view(np.uint8),
        Type.Q8_0: np.hstack([scales(BLOCKS), noise(32)]),
        Type.Q4_0: np.hstack([scales(BLOCKS), noise(16)]),
        Type.Q4_1: np.hstack([scales(BLOCKS), scales(BLOCKS), noise(16)]),
        Type.Q4_K: np.hstack([scales(BLOCKS), scales(BLOCKS), noise(12 + 128)]),
        Type.Q6_K: np.hstack([noise(128 + 64 + 16), scales(BLOCKS)]),
    }


def to_quantise():
    """Blocks of many magnitudes; one is zero, one has ties, one the smallest numbers, one an `f16` scale near the largest."""
    values = random.standard_normal((32, 32)) * np.ldexp(1.0, np.arange(-20, 12)).reshape(-1, 1)
    values[0] = 0
    values[1] = np.arange(-16, 16) + 0.5
    values[1, 0] = -127
    values[2] = np.arange(-16, 16) * 2**-30
    values[3] = np.arange(-16, 16) * 500000.0
    return values.astype(np.float32)


def write(name, tensors, entries=()):
    writer = GGUFWriter(HERE / name, "golden")
    for key, value, *types in entries:
        writer.add_key_value(key, value, *types)
    for tensor_name, tensor_type, values in tensors:
        writer.add_tensor(tensor_name, values, raw_dtype=tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


tensors = []
for tensor_type, data in blocks().items():
    values = np.ascontiguousarray(quants.dequantize(data, tensor_type))
    assert np.isfinite(values).all()
    tensors.append((f"{tensor_type.name}.data", tensor_type, data))
    tensors.append((f"{tensor_type.name}.values", Type.F32, values))
values = to_quantise()
tensors.append(("quantise.values", Type.F32, values))
tensors.append(("quantise.data", Type.Q8_0, quants.quantize(values, Type.Q8_0)))
write("blocks.gguf", tensors)

ramp = np.arange(-48, 48, dtype=np.float32).reshape(3, 32) / np.float32(7)
write(
    "written.gguf",
    [
        ("ramp.f32", Type.F32, ramp[:, :5].copy()),
        ("ramp.f16", Type.F16, ramp[:, :7].astype(np.float16)),
        ("ramp.q8_0", Type.Q8_0, quants.quantize(ramp, Type.Q8_0)),
    ],
    [
        ("general.name", "Golden, größer", Value.STRING),
        ("general.quantization_version", 2, Value.UINT32),
        ("golden.bool", True, Value.BOOL),
        ("golden.bools", [True, False, True], Value.ARRAY, Value.BOOL),
        ("golden.f32", 0.1, Value.FLOAT32),
        ("golden.f32s", [1e-5, -2.5], Value.ARRAY, Value.FLOAT32),
        ("golden.f64", 0.1, Value.FLOAT64),
        ("golden.f64s", [1e-300], Value.ARRAY, Value.FLOAT64),
        ("golden.i16", -30000, Value.INT16),
        ("golden.i32", -2000000000, Value.INT32),
        ("golden.i32s", [-1, 0, 2000000000], Value.ARRAY, Value.INT32),
        ("golden.i64", -(2**60), Value.INT64),
        ("golden.i8", -100, Value.INT8),
        ("golden.nested", [[1, 2], [3]], Value.ARRAY),
        ("golden.strings", ["a", "", "ẞ\n"], Value.ARRAY, Value.STRING),
        ("golden.u16", 60000, Value.UINT16),
        ("golden.u32", 4000000000, Value.UINT32),
        ("golden.u64", 2**63, Value.UINT64),
        ("golden.u64s", [2**63, 1], Value.ARRAY, Value.UINT64),
        ("golden.u8", 200, Value.UINT8),
        ("golden.u8s", b"bytes", Value.ARRAY),
    ],
)

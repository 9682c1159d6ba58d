"""NVIDIA GB10 (DGX Spark) as the cost model sees it.

Every figure says where it comes from. "Assumption" means that nobody has told us: such figures only shape the ranking
of tiles. Two, the useful share of L2 here and NOT_HIDDEN in cost.py, were set with the one file in view that SGLang
brings for the GB10, tuned by measuring; all others without any measurement of this kernel on a GB10.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """What one GPU offers. Times in seconds, sizes in bytes, rates as named."""

    name: str
    sms: int
    shared_per_block: int
    shared_per_sm: int
    shared_reserved_per_block: int
    warps_per_sm: int
    blocks_per_sm: int
    registers_per_sm: int
    registers_per_thread: int
    clock: float
    dram_bandwidth: float
    dram_latency: float
    l2_bytes: float
    l2_bandwidth: float
    l2_latency: float
    tensor_16bit: float
    tensor_8bit: float
    shared_bandwidth: float
    plain_shared_bandwidth: float
    conversions: float
    fp32_operations: float


# NVIDIA's data sheet: 48 SMs (6,144 CUDA cores), and 1 PFLOP of FP4 with sparsity. Dense is half of that, and each step
# from FP4 to FP8 to 16 bits halves again: 125 TFLOP/s in 16 bits, 1,024 operations a clock and SM (the rate of compute
# capability 8.6 to 12.x), which makes a clock of 2.54 GHz.
_PEAK_16BIT = 125e12
_SMS = 48
_PER_CLOCK_16BIT = 1024
_CLOCK = _PEAK_16BIT / (_SMS * _PER_CLOCK_16BIT)
# Published measurements of CUTLASS on DGX Sparks: 188 TFLOP/s in FP8 (of 250) and 356 in FP4 (of 500).
_TENSOR_SUSTAINED = 0.75
# Assumption: a streaming read gets 85 % of what LPDDR5x offers, as on other GPUs with such memory.
_DRAM_SUSTAINED = 0.85

GB10 = Device(
    name="NVIDIA GB10",
    sms=_SMS,
    # CUDA driver attribute 97 on a GB10; 100 KiB an SM and 1 KiB kept for the system in each block: CUDA C++
    # Programming Guide, compute capability 12.x.
    shared_per_block=101_376,
    shared_per_sm=102_400,
    shared_reserved_per_block=1024,
    # The same guide, compute capability 12.x.
    warps_per_sm=48,
    blocks_per_sm=24,
    registers_per_sm=65_536,
    registers_per_thread=255,
    clock=_CLOCK,
    # Data sheet: 273 GB/s, shared with the CPU.
    dram_bandwidth=273e9 * _DRAM_SUSTAINED,
    # Assumption: as on discrete GPUs of the generation, and some more for the shared memory controller.
    dram_latency=800e-9,
    # 24 MB by the driver. Assumption: three quarters of it hold what the kernel can use again.
    l2_bytes=24e6 * 0.75,
    # Assumption: 16 bytes a clock and SM, the order of what GPUs with the same SM reach.
    l2_bandwidth=_SMS * 16 * _CLOCK,
    # Assumption.
    l2_latency=300e-9,
    # Operations a second and SM that matrix products reach.
    tensor_16bit=_PEAK_16BIT * _TENSOR_SUSTAINED / _SMS,
    tensor_8bit=2 * _PEAK_16BIT * _TENSOR_SUSTAINED / _SMS,
    # Bytes a clock and SM: 32 banks of 4 bytes with ldmatrix. Assumption: half of that with the plain loads that Triton
    # uses for operands that it converts in registers.
    shared_bandwidth=128,
    plain_shared_bandwidth=64,
    # FP8 values converted to fp16 a clock and SM. Assumption: 64 instructions a clock (the guide's rate of type
    # conversions), two values each.
    conversions=128,
    # The guide: 128 FP32 operations a clock and SM.
    fp32_operations=128,
)

# Triton multiplies FP8 as FP8 on compute capability 12.1 from this release on; the ones before convert both operands to
# fp16 in registers. Read off the intermediate code (TTGIR) of SGLang's kernel from each release.
FP8_NATIVE_SINCE = (3, 8)


def multiplies_fp8(triton: str) -> bool:
    """Whether that Triton multiplies FP8 operands on a GB10 without converting them to fp16."""
    numbers = triton.split("+")[0].split(".")
    if len(numbers) < 2 or not all(number.isdigit() for number in numbers[:2]):
        raise ValueError(f"{triton!r} is not a version of Triton. Mend: give one such as 3.5.0.")
    return tuple(int(number) for number in numbers[:2]) >= FP8_NATIVE_SINCE

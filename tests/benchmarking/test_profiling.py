"""What a profile says of where the time goes: kinds by name, nothing counted twice."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.profiler_util import DeviceType, FunctionEvent
from torch.profiler import ProfilerActivity, profile

from modeling_trm.benchmarking.measure import Line
from modeling_trm.benchmarking.profiling import REST, by_kind, kind_of, profile_line

# Kernels as a GPU's profile names them, operators as a CPU's does.
NAMES = {
    "matrix products": [
        "nvjet_sm90_tst_192x192_64x4_2x1_v_bz_coopB_TNT",
        "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x2_tn_align8>(Params)",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>(cublasSplitKParams<float>)",
        "void gemv2T_kernel_val<int, int, float, float, float, 128, 16, 4>(Params)",
        "triton_tem_fused_mm_0", "triton_mm", "aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::matmul",
        "mkldnn::_linear_pointwise", "mkl::_mkl_linear",
    ],
    "attention": [
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4, cutlass::bfloat16_t> >(Params)",
        "void pytorch_flash::flash_bwd_convert_dq_kernel<Flash_bwd_kernel_traits<64> >(Flash_bwd_params, int)",
        "fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::bfloat16_t>::Params)",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64_4x1x1_cga1x1x1_kernel0_0",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ],
    "convolution": [
        "_conv_forward", "_conv_backward", "modeling_trm_conv_triton_trm::conv_silu_backward", "aten::conv1d",
        "void causal_conv1d_channellast_fwd_kernel<Causal_conv1d_channellast_fwd_kernel_traits<128, 4, 64> >(Params)",
        "void at::native::(anonymous namespace)::conv_depthwise2d_forward_kernel<3, c10::BFloat16, int>(Tensor)",
        "implicit_convolve_sgemm",
    ],
    "SSD": [
        "_ssd_forward", "_ssd_backward", "modeling_trm_ssd_triton_trm::ssd_product_backward",
        "modeling_trm_ssd_cuda_trm::ssd_scan", "_chunk_scan_fwd_kernel", "_chunk_state_bwd_db_kernel",
        "_chunk_cumsum_bwd_kernel", "_bmm_chunk_fwd_kernel", "_state_passing_fwd_kernel",
    ],
    "copies": [
        "Memcpy DtoD (Device -> Device)", "Memset (Device)", "aten::copy_", "aten::_to_copy", "aten::clone",
        "aten::cat",
        "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)>()",
        "void at::native::elementwise_kernel<128, 4, at::native::bfloat16_copy_kernel_cuda(at::TensorIteratorBase&)>()",
        "void at::native::(anonymous namespace)::CatArrayBatchedCopy<unsigned short, unsigned int, 3, 64, 64>()",
    ],
    REST: [
        "triton_poi_fused__to_copy_silu_2", "triton_red_fused_mean_mul_pow_3", "triton_per_fused_add_rsqrt_0",
        "triton_poi_fused_convolution_mm_1", "triton_poi_fused_convert_element_type_4", "aten::mul", "aten::chunk",
        "aten::embedding_dense_backward", "_layer_norm_fwd_1pass_kernel", "aten::cumsum",
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16> >()",
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<float, float> > >()",
    ],
}  # fmt: skip
CPU, CUDA = DeviceType.CPU, DeviceType.CUDA


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names])
def test_a_kernel_is_of_the_kind_that_its_name_says(kind: str, name: str) -> None:
    assert kind_of(name) == kind


def event(name: str, start: float, end: float, device: DeviceType = CUDA, annotation: bool = False) -> FunctionEvent:
    """Of a profile, times in microseconds."""
    return FunctionEvent(
        1, name, 1, start, end, device_type=device, use_device="cuda", is_user_annotation=annotation
    )  # fmt: skip


def test_on_a_gpu_kernels_count_once_and_neither_operators_nor_spans() -> None:
    step, zero = "Optimizer.step#Muon.step", "Optimizer.zero_grad#Muon.zero_grad"
    events = [
        event("aten::mm", 0, 90, CPU),
        event(step, 90, 100, CPU, annotation=True),
        event("Torch-Compiled Region: 0/0", 0, 3_000),
        event("nvjet_sm90_tst", 0, 2_000),
        event("_ssd_forward", 2_000, 3_000),
        event(step, 3_000, 8_000, annotation=True),
        event("nvjet_sm90_tst", 3_000, 4_000),
        event("triton_poi_fused_add_0", 6_000, 8_000),
        event(zero, 8_000, 8_500, annotation=True),
        event("Memset (Device)", 8_000, 8_500),
        event(step, 9_000, 9_500, annotation=True),
        event("triton_poi_fused_add_0", 9_000, 9_500),
        event("triton_poi_fused_add_0", 9_500, 9_750),  # the weight average, after the last step
    ]
    expected = {"optimiser": 3.5, "matrix products": 2.0, "SSD": 1.0, "copies": 0.5, REST: 0.25}
    assert by_kind(events, CUDA) == expected
    assert list(by_kind(events, CUDA)) == list(expected)  # the longest first


def test_on_a_cpu_the_kinds_add_up_to_the_operators_own_time() -> None:
    layer = torch.nn.Linear(64, 64)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as recorded:
        layer(torch.ones(8, 64)).exp().sum().backward()
        optimiser.step()
    found = by_kind(recorded.events(), CPU)
    assert sum(found.values()) == pytest.approx(recorded.key_averages().self_cpu_time_total / 1e3)
    assert found.keys() >= {"matrix products", "optimiser", REST} and min(found.values()) > 0
    inside = [e for e in recorded.events() if e.name == "Optimizer.step#SGD.step"]
    assert found["optimiser"] == pytest.approx(inside[0].cpu_time_total / 1e3)


def test_profile_writes_a_trace_and_the_operators(tmp_path: Path) -> None:
    labels: dict[str, Any] = {"work": "a product", "L": 97, "dtype": "float32"}
    matrix = torch.ones(32, 32)
    kinds = profile_line(Line(labels, lambda: matrix @ matrix), torch.device("cpu"), tmp_path)
    assert kinds["matrix products"] > 0
    trace, operators = sorted(tmp_path.iterdir())
    assert (trace.name, operators.name) == ("a-product_L97_float32.json", "a-product_L97_float32.txt")
    assert json.loads(trace.read_text())["traceEvents"] and "aten::mm" in operators.read_text()

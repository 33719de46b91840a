// The GPU's benchmarks, an operation to a file.
#pragma once

namespace assay::kernels {

void register_append_index_cuda_benchmarks();
void register_append_kv_cuda_benchmarks();
void register_embed_cuda_benchmarks();
void register_gemm_cuda_benchmarks();
void register_gemm_swiglu_cuda_benchmarks();
void register_indexer_cuda_benchmarks();
void register_mla_attention_cuda_benchmarks();
void register_moe_cuda_benchmarks();
void register_moe_gemm_cuda_benchmarks();
void register_moe_layer_cuda_benchmarks();
void register_project_cuda_benchmarks();
void register_project_heads_cuda_benchmarks();
void register_rms_norm_cuda_benchmarks();
void register_rope_cuda_benchmarks();
void register_route_cuda_benchmarks();
void register_sample_cuda_benchmarks();
void register_sum_parts_cuda_benchmarks();
void register_swiglu_cuda_benchmarks();
void register_weight_upload_cuda_benchmarks();

}  // namespace assay::kernels

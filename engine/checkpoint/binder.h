// Looks a checkpoint's tensors up by name, checks them, and collects everything that is wrong, so
// that one run lists it all.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/weights.h"

namespace assay::engine {

class Binder {
 public:
  explicit Binder(const Checkpoint& checkpoint);

  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }

  // A dense tensor with this shape, as a matrix of its last dimension's columns.
  Matrix take(const std::string& name, const std::vector<std::int64_t>& shape);

  // A projection's weight, in whatever form the module has: `module`.weight dense or FP8, or the
  // tensors of GPTQ, AQLM or the release's VQ format.
  Matrix take_projection(const std::string& module, int n_rows, int n_cols);

  // The n VQ experts of one projection as the MLX build stacks them: codes [n, R, words], scales
  // [n, R, groups]. n = 0: one module that is not a stack.
  std::vector<Matrix> take_vq_stack(const std::string& module, int n, int n_rows, int n_cols);

  void ignore_prefix(const std::string& prefix);
  // Every tensor that was asked for is there and right, and no other tensor is.
  Result<void> finish() const;

  const std::vector<const TensorView*>& used() const { return used_; }
  std::vector<std::shared_ptr<const void>> take_owned() { return std::move(owned_); }

 private:
  struct VqTensors {
    const TensorView *codes = nullptr, *scales = nullptr;
  };

  const TensorView* claim(const std::string& name, const std::vector<std::int64_t>& shape,
                          const std::vector<DType>& dtypes);
  VqTensors find_vq(const std::string& module, const std::vector<std::int64_t>& codes_shape,
                    const std::vector<std::int64_t>& scales_shape);
  const float* codebook(int dim, int n_codes, const std::string& module);
  const float* widen(const TensorView& t);
  const std::byte* as_f16(const TensorView& t);  // nullptr if a value is not one exactly
  Matrix take_gptq(const std::string& module, const ModuleFormat& f, int n_rows, int n_cols);
  Matrix take_fp8(const std::string& module, const ModuleFormat& f, int n_rows, int n_cols);
  Matrix take_aqlm(const std::string& module, const ModuleFormat& f, int n_rows, int n_cols);
  static kernels::VqMatrix vq_matrix(const ModuleFormat& f, int n_rows, int n_cols);
  void check_codes(const kernels::VqMatrix& w, const std::string& tensor);
  void wrong(std::string message) { wrong_.push_back(std::move(message)); }

  const Checkpoint& checkpoint_;
  std::set<std::string> unused_;
  std::vector<std::string> missing_, wrong_;
  std::vector<const TensorView*> used_;
  std::map<std::pair<int, int>, const float*> codebooks_;  // by (dim, n_codes)
  std::vector<std::shared_ptr<const void>> owned_;
};

}  // namespace assay::engine

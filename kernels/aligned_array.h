// Memory aligned to a cache line, zero when new, that only grows.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace assay::kernels {

template <class T>
class AlignedArray {
 public:
  AlignedArray() = default;
  explicit AlignedArray(std::size_t n) { reserve(n); }

  // At least n values; contents are kept only if nothing had to grow.
  void reserve(std::size_t n) {
    if (n <= size_) return;
    data_.reset(static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})));
    std::memset(static_cast<void*>(data_.get()), 0, n * sizeof(T));
    size_ = n;
  }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<T[], Free> data_;
  std::size_t size_ = 0;
};

}  // namespace assay::kernels

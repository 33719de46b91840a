// A mapped file in the page cache to the GPU, as weights are loaded: the ring of pinned buffers,
// beside a copy straight from the file's pages and, as the roof, one from pinned memory. Every
// repetition maps the file anew, as a load does, so each takes the pages' faults.
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "kernels/bench/cuda_bench.h"
#include "kernels/upload_ring.h"

namespace assay::kernels {
namespace {

constexpr std::size_t kBytes = std::size_t{1} << 30;

// Written once, removed at the end.
class WeightFile {
 public:
  WeightFile()
      : path_(std::filesystem::temp_directory_path() /
              ("assay-upload-" + std::to_string(::getpid()))) {
    std::ofstream out(path_, std::ios::binary);
    std::vector<std::uint64_t> block(std::size_t{1} << 17);
    for (std::size_t i = 0; i < kBytes / (block.size() * sizeof(block[0])); ++i) {
      for (std::size_t k = 0; k < block.size(); ++k) block[k] = (i << 32 | k) * 0x9e3779b97f4a7c15u;
      out.write(reinterpret_cast<const char*>(block.data()),
                static_cast<std::streamsize>(block.size() * sizeof(block[0])));
    }
    CHECK(out.flush().good()) << "cannot write 1 GiB to " << path_.string();
  }
  ~WeightFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  WeightFile(const WeightFile&) = delete;
  MappedFile map() const {
    auto file = MappedFile::open(path_);
    CHECK(file.has_value()) << file.error().message;
    CHECK(file->bytes().size() == kBytes) << file->bytes().size();
    return *std::move(file);
  }

 private:
  const std::filesystem::path path_;
};

bool arrived(const DeviceBytes& device, const MappedFile& file) {
  std::vector<std::byte> got(kBytes);
  copy_to_host(got.data(), device.data(), kBytes, nullptr);
  return std::memcmp(got.data(), file.bytes().data(), kBytes) == 0;
}

// upload(file, device) copies the whole and returns when it is there.
template <class Upload>
void time_uploads(benchmark::State& state, const Upload& upload) {
  static const WeightFile weights;
  const DeviceBytes device(kBytes);
  {
    const std::vector<std::byte> zeros(kBytes);
    copy_to_device(device.data(), zeros.data(), kBytes, nullptr);  // nothing of an earlier upload
    const MappedFile file = weights.map();
    upload(file, device);
    if (!arrived(device, file)) return state.SkipWithError("wrong bytes");
  }
  for (auto _ : state) {
    const MappedFile file = weights.map();
    const auto start = std::chrono::steady_clock::now();
    upload(file, device);
    state.SetIterationTime(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  state.counters["B/s"] = benchmark::Counter(static_cast<double>(kBytes),
                                             benchmark::Counter::kIsIterationInvariantRate);
}

void through_ring(benchmark::State& state) {
  time_uploads(state, [](const MappedFile& file, const DeviceBytes& device) {
    UploadRing ring(kBytes);  // its making is part of a load
    ring.copy(device.data(), file.bytes().data(), kBytes);
    ring.finish();
  });
}

void from_pages(benchmark::State& state) {
  time_uploads(state, [](const MappedFile& file, const DeviceBytes& device) {
    copy_to_device(device.data(), file.bytes().data(), kBytes, nullptr);
  });
}

void from_pinned(benchmark::State& state) {
  std::unique_ptr<PinnedBytes> pinned;
  const CudaStreamOwner stream;
  time_uploads(state, [&](const MappedFile& file, const DeviceBytes& device) {
    if (pinned == nullptr) {  // by the first, which is not on the clock
      pinned = std::make_unique<PinnedBytes>(kBytes);
      std::memcpy(pinned->data(), file.bytes().data(), kBytes);
    }
    copy_to_device_later(device.data(), *pinned, kBytes, stream.get());
    synchronise(stream.get());
  });
}

}  // namespace

void register_weight_upload_cuda_benchmarks() {
  const struct {
    const char* name;
    void (*run)(benchmark::State&);
  } all[] = {{"weight_upload_cuda/1GiB/ring", through_ring},
             {"weight_upload_cuda/1GiB/file_pages", from_pages},
             {"weight_upload_cuda/1GiB/pinned_roof", from_pinned}};
  for (const auto& one : all)
    benchmark::RegisterBenchmark(one.name, one.run)->UseManualTime()->Unit(benchmark::kMillisecond);
}

}  // namespace assay::kernels

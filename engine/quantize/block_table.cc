#include "engine/quantize/block_table.h"

namespace assay::engine {
namespace {

constexpr int kLanes = ColumnSweep::kLanes;

std::size_t table_size(const Codebook& book) {
  return static_cast<std::size_t>(book.n_codes) * static_cast<std::size_t>(book.dim + 1);
}

}  // namespace

void BlockTables::prepare(int first, int end) {
  const int n_blocks = (end - first) / book_.dim;
  first_col_ = first;
  tables_.resize(table_size(book_) * static_cast<std::size_t>(n_blocks));
  pool_.parallel_for(n_blocks, [&](int b) {
    fill(first + b * book_.dim, &tables_[table_size(book_) * static_cast<std::size_t>(b)]);
  });
}

const float* BlockTables::at(int col) const {
  return &tables_[table_size(book_) * static_cast<std::size_t>((col - first_col_) / book_.dim)];
}

void BlockTables::fill(int col, float* table) const {
  const int dim = book_.dim;
  for (int k = 0; k < book_.n_codes; ++k, table += dim + 1) {
    const float* c = &book_.values[static_cast<std::size_t>(k) * static_cast<std::size_t>(dim)];
    double norm = 0;
    for (int j = 0; j < dim; ++j) {
      double sum = 0;
      for (int i = 0; i <= j; ++i)
        sum += static_cast<double>(c[i]) * (factor_ != nullptr
                                                ? static_cast<double>(factor_->at(col + i, col + j))
                                            : i == j ? 1.0
                                                     : 0.0);
      table[j] = static_cast<float>(sum);
      norm += static_cast<double>(table[j]) * static_cast<double>(table[j]);
    }
    table[dim] = static_cast<float>(norm / 2);
  }
}

void BlockTables::targets(const ColumnSweep::Block& b, float* y) const {
  for (int j = 0; j < book_.dim; ++j)
    for (int lane = 0; lane < kLanes; ++lane) {
      float sum = factor_ != nullptr ? b.s[j * kLanes + lane] : b.w[j * kLanes + lane];
      for (int i = 0; factor_ != nullptr && i <= j; ++i)
        sum += b.w[i * kLanes + lane] * factor_->at(b.col + i, b.col + j);
      y[j * kLanes + lane] = sum;
    }
}

}  // namespace assay::engine

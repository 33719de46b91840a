// MLA attention, the indexer's scores and the selection, as the cpu backend computes them.
#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/aligned_array.h"
#include "kernels/cpu_kernels_testing.h"
#include "kernels/indexer.h"
#include "kernels/mla_attention.h"

namespace assay::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Attention {
  Attention(int heads, int latent, int rope_dims, int positions, bool integers = false)
      : n_heads(heads), kv_lora(latent), rope(rope_dims), n_keys(positions) {
    const auto n_q = static_cast<std::size_t>(heads) * row(),
               n_kv = static_cast<std::size_t>(positions) * row();
    q = integers ? std::vector<float>(n_q, 0.0f) : random_floats(n_q, 1, 2);
    kv = integers ? random_integers(n_kv, 2) : random_floats(n_kv, 2, 2);
  }
  int row() const { return kv_lora + rope; }
  MlaAttentionArgs args(float* out) const {
    return {.q = q.data(),
            .kv = kv.data(),
            .keys = keys.empty() ? nullptr : keys.data(),
            .n_keys = keys.empty() ? n_keys : static_cast<int>(keys.size()),
            .n_heads = n_heads,
            .kv_lora = kv_lora,
            .rope = rope,
            .scale = 0.25f,
            .out = out};
  }
  std::vector<float> reference() const {
    std::vector<float> out(static_cast<std::size_t>(n_heads) * kv_lora);
    mla_attention_reference(args(out.data()));
    return out;
  }
  std::vector<float> cpu(CpuTarget target) const {
    std::vector<float> out(static_cast<std::size_t>(n_heads) * kv_lora);
    mla_attention_cpu(target, args(out.data()));
    return out;
  }
  int n_heads, kv_lora, rope, n_keys;
  std::vector<float> q, kv;
  std::vector<int> keys;
};

using MlaAttentionCpu = EveryTarget;
ASSAY_FOR_EVERY_TARGET(MlaAttentionCpu);

TEST_P(MlaAttentionCpu, IsExactWhereEveryKeyWeighsTheSame) {
  // Queries of zero: every weight is exp(0) = 1 and a power of two of keys divides exactly.
  for (const int n_keys : {1, 2, 64, 128, 256})
    for (const int n_heads : {1, 3, 6, 8, 20}) {
      const Attention a(n_heads, 21, 4, n_keys, true);
      EXPECT_EQ(first_difference(a.reference(), a.cpu(GetParam())), "")
          << n_keys << " keys, " << n_heads << " heads";
    }
}

TEST_P(MlaAttentionCpu, IsWithinRoundingOfTheReference) {
  for (const int n_keys : {1, 5, 63, 65, 200, 300})
    for (const int n_heads : {1, 6, 17, 64})
      for (const int kv_lora : {5, 16, 130}) {
        Attention a(n_heads, kv_lora, 8, n_keys);
        if (n_keys == 300)
          for (int i = 0; i < 300; i += 3) a.keys.push_back(i);
        // A score's error is at most (row + 1) 2^-24 Σ|q·kv| · scale <= (row + 1)² 2^-24 here (both
        // below 2, scale 1/4). exp turns it into a relative error of each weight, numerator and
        // denominator; n_keys further roundings accumulate; latents are below 2.
        const double row = a.row(), used = a.keys.empty() ? n_keys : 100;
        const double tolerance = 2 * 2 * 0x1p-24 * ((row + 1) * (row + 1) + used + 8);
        expect_within(a.reference(), a.cpu(GetParam()),
                      std::vector<double>(static_cast<std::size_t>(n_heads) * kv_lora, tolerance));
      }
}

TEST_P(MlaAttentionCpu, OneKeyIsItsOwnLatent) {
  const Attention a(3, 20, 6, 1);
  const auto out = a.cpu(GetParam());
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], a.kv[i % 20]) << i;
}

TEST_P(MlaAttentionCpu, EveryTargetGivesTheSameBits) {
  for (const int n_heads : {1, 3, 6, 17, 48, 64})
    for (const int kv_lora : {5, 21, 128}) {
      const Attention a(n_heads, kv_lora, 8, 150);
      EXPECT_EQ(first_difference(a.cpu(usable_cpu_targets().front()), a.cpu(GetParam())), "")
          << n_heads << " heads, " << kv_lora;
    }
}

// State and scratch of `n_pairs` pairs.
struct Pairs {
  Pairs(int n, int kv_lora)
      : softmax(2 * static_cast<std::size_t>(mla_lanes(n))),
        latent(static_cast<std::size_t>(n) * mla_latent_stride(kv_lora)),
        scratch(mla_block_scratch(n)),
        state{softmax.data(), softmax.data() + mla_lanes(n), latent.data()} {}
  AlignedArray<float> softmax, latent, scratch;
  MlaState state;
};

TEST_P(MlaAttentionCpu, QueriesThatShareATileAreAsIfAlone) {
  // Ten queries of three heads at positions 60 … 69: their blocks end at different keys, and the
  // first four do not see the second block at all.
  const int n_queries = 10, first = 60, n_heads = 3, kv_lora = 21, rope = 8, row = kv_lora + rope;
  const Attention all(n_queries * n_heads, kv_lora, rope, first + n_queries);
  auto poisoned = all.kv;  // the newest key: only the last query may see it
  for (int i = 0; i < row; ++i) poisoned[static_cast<std::size_t>(first + 9) * row + i] = kNan;

  for (const bool merged : {false, true}) {
    const int n_pairs = n_queries * n_heads, n_lanes = mla_lanes(n_pairs);
    AlignedArray<float> q(static_cast<std::size_t>(row) * n_lanes);
    mla_transpose_queries(all.q.data(), n_pairs, row, q.data());
    Pairs tile(n_pairs, kv_lora), later(n_pairs, kv_lora);
    for (int block = 0; block < 2; ++block) {
      const int first_key = block * kMlaKeyBlock;
      const int n_keys = std::min(kMlaKeyBlock, first + n_queries - first_key);
      const float* rows[kMlaKeyBlock];
      for (int j = 0; j < n_keys; ++j)
        rows[j] = &poisoned[static_cast<std::size_t>(first_key + j) * row];
      std::vector<int> n_visible(static_cast<std::size_t>(n_lanes));
      for (int p = 0; p < n_lanes; ++p)
        n_visible[p] = first + std::min(p / n_heads, n_queries - 1) + 1 - first_key;
      Pairs& to = merged && block == 1 ? later : tile;
      mla_block_cpu(GetParam(), {.q = q.data(),
                                 .n_pairs = n_pairs,
                                 .rows = rows,
                                 .key_blocks = nullptr,
                                 .n_keys = n_keys,
                                 .n_visible = n_visible.data(),
                                 .kv_lora = kv_lora,
                                 .rope = rope,
                                 .scale = 0.25f,
                                 .first = merged || block == 0,
                                 .state = to.state,
                                 .scratch = to.scratch.data()});
    }
    if (merged) mla_merge_cpu(GetParam(), n_pairs, kv_lora, tile.state, later.state);
    mla_finish_cpu(GetParam(), n_pairs, kv_lora, tile.state);
    for (int i = 0; i < n_queries - 1; ++i) {
      Attention alone(n_heads, kv_lora, rope, first + i + 1);
      alone.q.assign(all.q.begin() + i * n_heads * row, all.q.begin() + (i + 1) * n_heads * row);
      alone.kv.assign(all.kv.begin(), all.kv.begin() + (first + i + 1) * row);
      std::vector<float> got;
      for (int h = 0; h < n_heads; ++h) {
        const float* latent = tile.state.latent + (i * n_heads + h) * mla_latent_stride(kv_lora);
        got.insert(got.end(), latent, latent + kv_lora);
      }
      EXPECT_EQ(first_difference(alone.cpu(GetParam()), got), "")
          << "query " << i << (merged ? ", merged" : "");
    }
    EXPECT_TRUE(std::isnan(tile.state.latent[27 * mla_latent_stride(kv_lora)]))
        << "the last sees it";
  }
}

TEST_P(MlaAttentionCpu, LanesMayBeKeysOrPairs) {
  for (const int n_heads : {1, 2, 3, 5, 6, 17})
    for (const int kv_lora : {5, 21, 128})
      for (const int n_keys : {1, 15, 16, 17, 33, 48, 64, 130}) {
        const Attention a(n_heads, kv_lora, 8, n_keys);
        std::vector<float> key_blocks(static_cast<std::size_t>(n_keys + 63) / 64 * 64 * a.row());
        for (int t = 0; t < n_keys; ++t)
          store_key_lane(&a.kv[static_cast<std::size_t>(t) * a.row()], a.row(), t,
                         key_blocks.data());
        Pairs pairs(n_heads, kv_lora);
        for (int first = 0; first < n_keys; first += kMlaKeyBlock) {
          const int n = std::min(kMlaKeyBlock, n_keys - first);
          const float* rows[kMlaKeyBlock];
          for (int j = 0; j < n; ++j)
            rows[j] = &a.kv[static_cast<std::size_t>(first + j) * a.row()];
          const std::vector<int> n_visible(static_cast<std::size_t>(mla_lanes(n_heads)), n);
          mla_block_cpu(GetParam(),
                        {.q = a.q.data(),
                         .n_pairs = n_heads,
                         .rows = rows,
                         .key_blocks = &key_blocks[static_cast<std::size_t>(first) * a.row()],
                         .n_keys = n,
                         .n_visible = n_visible.data(),
                         .kv_lora = kv_lora,
                         .rope = 8,
                         .scale = 0.25f,
                         .first = first == 0,
                         .state = pairs.state,
                         .scratch = pairs.scratch.data()});
        }
        mla_finish_cpu(GetParam(), n_heads, kv_lora, pairs.state);
        std::vector<float> got;
        for (int h = 0; h < n_heads; ++h) {
          const float* latent = pairs.state.latent + h * mla_latent_stride(kv_lora);
          got.insert(got.end(), latent, latent + kv_lora);
        }
        EXPECT_EQ(first_difference(a.cpu(GetParam()), got), "")
            << n_heads << " heads, " << kv_lora << ", " << n_keys << " keys";
      }
}

using IndexerCpu = EveryTarget;
ASSAY_FOR_EVERY_TARGET(IndexerCpu);

struct Index {
  Index(int heads, int dim, int keys, bool integers) : n_heads(heads), head_dim(dim), n_keys(keys) {
    const auto make = [&](std::size_t n, std::uint64_t seed) {
      return integers ? random_integers(n, seed) : random_floats(n, seed);
    };
    q = make(static_cast<std::size_t>(heads) * dim, 1);
    weights = make(static_cast<std::size_t>(heads), 2);
    k = make(static_cast<std::size_t>(keys) * dim, 3);
  }
  std::vector<float> reference() const {
    std::vector<float> scores(static_cast<std::size_t>(n_keys));
    index_scores_reference(
        {q.data(), weights.data(), k.data(), n_keys, n_heads, head_dim, scores.data()});
    return scores;
  }
  std::vector<float> cpu(CpuTarget target) const {
    const int n_blocks = (n_keys + 15) / 16;
    std::vector<float> blocks(static_cast<std::size_t>(n_blocks) * 16 * head_dim),
        scores(static_cast<std::size_t>(n_blocks) * 16);
    for (int t = 0; t < n_keys; ++t)
      store_key_lane(&k[static_cast<std::size_t>(t) * head_dim], head_dim, t, blocks.data());
    index_scores_cpu(target, {q.data(), weights.data(), blocks.data(), n_blocks, n_heads, head_dim,
                              scores.data()});
    scores.resize(static_cast<std::size_t>(n_keys));
    return scores;
  }
  int n_heads, head_dim, n_keys;
  std::vector<float> q, weights, k;
};

TEST_P(IndexerCpu, ScoresAreExactOnIntegers) {
  for (const int heads : {1, 4, 7, 32})
    for (const int n_keys : {1, 16, 70, 200}) {
      const Index x(heads, 64, n_keys, true);  // head_dim^-0.5 = 1/8
      EXPECT_EQ(first_difference(x.reference(), x.cpu(GetParam())), "") << heads << " " << n_keys;
    }
}

TEST_P(IndexerCpu, ScoresAreWithinRounding) {
  const Index x(9, 50, 100, false);
  // A head's product: 51 roundings of at most 2^-24 · 50 (terms below 1), scaled by 50^-0.5; then
  // nine heads with weights below 1 add up and round nine times at most 9 · 50^0.5.
  const double per_head = 52 * 0x1p-24 * 50 / std::sqrt(50.0);
  expect_within(x.reference(), x.cpu(GetParam()),
                std::vector<double>(100, 9 * per_head + 9 * 0x1p-24 * 9 * std::sqrt(50.0)));
}

TEST_P(IndexerCpu, EveryTargetGivesTheSameBits) {
  for (const int heads : {1, 4, 7}) {
    const Index x(heads, 33, 150, false);
    EXPECT_EQ(first_difference(x.cpu(usable_cpu_targets().front()), x.cpu(GetParam())), "")
        << heads;
  }
}

void expect_same_selection(const std::vector<float>& scores, int k) {
  std::vector<int> expected, got(static_cast<std::size_t>(std::min<std::size_t>(k, scores.size())));
  float expected_margin, margin;
  select_top_k(scores.data(), static_cast<int>(scores.size()), k, &expected, &expected_margin);
  TopKSelector selector;
  selector.select(scores.data(), static_cast<int>(scores.size()), k, got.data(), &margin);
  EXPECT_EQ(expected, got) << scores.size() << " scores, k " << k;
  EXPECT_EQ(first_difference({expected_margin}, {margin}), "");
}

TEST(TopKSelector, SelectsWhatTheReferenceSelects) {
  for (const int n : {1, 2, 100, 1000, 5000})
    for (const int k : {1, 2, 99, 512, 4999})
      for (const double size : {1e-30, 1.0, 1e6})
        expect_same_selection(random_floats(static_cast<std::size_t>(n), n + k, size), k);
}

TEST(TopKSelector, BreaksTiesByPosition) {
  expect_same_selection(std::vector<float>(300, 1.5f), 70);
  expect_same_selection(random_integers(1000, 1, 2), 333);
  std::vector<float> zeros(100);
  for (std::size_t i = 0; i < zeros.size(); ++i) zeros[i] = i % 3 == 0 ? -0.0f : 0.0f;
  expect_same_selection(zeros, 40);
}

TEST(TopKSelector, RanksNanAndMinusInfinityLast) {
  std::vector<float> scores = random_floats(64, 5);
  for (int i = 0; i < 64; i += 4) scores[i] = i % 8 == 0 ? kNan : -kInf;
  scores[3] = kInf;
  std::vector<int> expected, got(48);
  select_top_k(scores.data(), 64, 48, &expected, nullptr);
  TopKSelector().select(scores.data(), 64, 48, got.data(), nullptr);
  EXPECT_EQ(expected, got);
  for (const int i : got) EXPECT_NE(i % 4, 0) << i;
}

}  // namespace
}  // namespace assay::kernels

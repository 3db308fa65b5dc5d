// Vector tiles with AVX2: which kernel runs, over which chunks. Included by avx2.cpp after products_avx2_kernels.inl.

namespace {

using Kernel = void (*)(const Work&);

// How one tile runs.
struct Course {
  bool paired;
  Operands operands;
  Settling settling;
  int steps;        // of a segment
  int most_rows;    // of a kernel
};

Course course_of(const RowTile& tile, const VectorOptions& options) {
  Course course{};
  course.paired = is_paired(options.form);
  course.settling = settling_of(options, tile.scales != nullptr);
  const std::int64_t pair = 2 * options.element_limit;
  course.operands = is_biased(options.form) ? Operands::biased
                    : tile.codes_signed     ? Operands::sign
                    : pair < kLaneLimit     ? Operands::natural
                                            : Operands::halves;
  course.steps = 1;
  while (course.steps < 8 && options.blocks_per_vector * 4 % (course.steps * 2) == 0 &&
         pair * course.steps * 2 < kLaneLimit)
    course.steps *= 2;
  course.most_rows = course.settling == Settling::wide ? 1 : course.paired || course.steps >= 4 ? kKernelRows : 3;
  return course;
}

template <int Rows, bool Signed, bool Fetch>
Kernel paired_settling(Settling settling) {
  switch (settling) {
    case Settling::weight: return paired_kernel<Rows, Signed, Settling::weight, Fetch>;
    case Settling::product: return paired_kernel<Rows, Signed, Settling::product, Fetch>;
    default: return paired_kernel<Rows, Signed, Settling::rounded, Fetch>;
  }
}

template <int Rows>
Kernel paired_kernel_of(const Course& course, bool fetch) {
  if (fetch) return paired_settling<Rows, true, true>(course.settling);
  return course.operands == Operands::biased ? paired_settling<Rows, true, false>(course.settling)
                                             : paired_settling<Rows, false, false>(course.settling);
}

template <int Rows, Operands Kind, int Steps>
Kernel plain_settling(Settling settling) {
  if constexpr (Rows == 1)
    if (settling == Settling::wide) return wide_kernel<Kind, Steps>;
  switch (settling) {
    case Settling::weight: return plain_kernel<Rows, Kind, Steps, Settling::weight>;
    case Settling::product: return plain_kernel<Rows, Kind, Steps, Settling::product>;
    default: return plain_kernel<Rows, Kind, Steps, Settling::rounded>;
  }
}

template <int Rows, Operands Kind>
Kernel plain_steps(const Course& course) {
  switch (course.steps) {
    case 4: return plain_settling<Rows, Kind, 4>(course.settling);
    case 8: return plain_settling<Rows, Kind, 8>(course.settling);
  }
  if constexpr (Rows <= 3) {
    if (course.steps == 2) return plain_settling<Rows, Kind, 2>(course.settling);
    return plain_settling<Rows, Kind, 1>(course.settling);
  }
  __builtin_unreachable();
}

template <int Rows>
Kernel kernel_of_rows(const Course& course, bool fetch) {
  if (course.paired) return paired_kernel_of<Rows>(course, fetch);
  switch (course.operands) {
    case Operands::biased: return plain_steps<Rows, Operands::biased>(course);
    case Operands::natural: return plain_steps<Rows, Operands::natural>(course);
    case Operands::sign: return plain_steps<Rows, Operands::sign>(course);
    case Operands::halves: break;
  }
  if constexpr (Rows <= 3) return plain_settling<Rows, Operands::halves, 1>(course.settling);
  __builtin_unreachable();
}

Kernel kernel_of(const Course& course, int rows, bool fetch) {
  switch (rows) {
    case 1: return kernel_of_rows<1>(course, fetch);
    case 2: return kernel_of_rows<2>(course, fetch);
    case 3: return kernel_of_rows<3>(course, fetch);
    case 4: return kernel_of_rows<4>(course, fetch);
    case 5: return kernel_of_rows<5>(course, fetch);
    case 6: return kernel_of_rows<6>(course, fetch);
    default: __builtin_unreachable();
  }
}

// The blocks from chunk.at on that one kernel call sums in int32: whole vectors, or a part of one that is very long.
std::int64_t next_blocks(const RowTile& tile, const VectorOptions& options, const Course& course, std::int64_t at) {
  const std::int64_t total = tile.positions * tile.blocks_per_position, unit = options.blocks_per_vector;
  if (unit > kChunkBlocks) return smaller(kChunkBlocks, unit - at % unit);
  const std::int64_t even = course.paired ? 2 : 1, left = (total - at) / unit;
  std::int64_t most = kChunkBlocks / unit;
  if (course.settling != Settling::wide) most = smaller(most, options.drain);
  most -= most % even;
  // Chunks of equal length: 72 blocks are 36 + 36, not 64 + 8.
  const std::int64_t chunks = (left + most - 1) / most;
  if (chunks == 0) return 0;
  const std::int64_t vectors = (left + chunks - 1) / chunks;
  return smaller(vectors + vectors % even, left) * unit;
}

void advance(const RowTile& tile, Chunk& chunk) {
  chunk.at += chunk.blocks;
  chunk.offset += chunk.blocks;
  while (chunk.offset >= tile.blocks_per_position && chunk.position < tile.positions) {
    chunk.offset -= tile.blocks_per_position;
    ++chunk.position;
  }
}

// `weights_of(panel, chunk, work)` names the codes and scales of a panel's chunk.
template <class WeightsOf>
void run_tile(const RowTile& tile, int panels, const VectorOptions& options, const Course& course,
              const WeightsOf& weights_of, std::int64_t* out) {
  const std::int64_t total = tile.positions * tile.blocks_per_position, unit = options.blocks_per_vector;
  const int groups = (tile.rows + course.most_rows - 1) / course.most_rows;
  for (int r = 0; r < tile.rows; ++r)
    __builtin_memset(out + r * kOutStride, 0, panels * kPanelChannels * sizeof *out);
  ArrangedRows rows;
  Work work{&rows, 0, nullptr, nullptr, 0, 0, options.rounding, tile.scales != nullptr, nullptr, nullptr};
  Chunk chunk;
  for (chunk.blocks = next_blocks(tile, options, course, 0); chunk.at < total;
       chunk.blocks = next_blocks(tile, options, course, chunk.at)) {
    work.blocks_per_vector = smaller(unit, chunk.blocks);
    work.vectors = chunk.blocks / work.blocks_per_vector;
    for (int group = 0, first = 0, count; group < groups; ++group, first += count) {
      count = (tile.rows - first + groups - group - 1) / (groups - group);
      if (course.paired)
        arrange_paired(tile, chunk, first, count, rows);
      else
        arrange_plain(tile, chunk, first, count, unit, course.steps, rows);
    }
    for (int panel = 0; panel < panels; ++panel) {
      weights_of(panel, chunk, work);
      for (int group = 0, first = 0, count; group < groups; ++group, first += count) {
        count = (tile.rows - first + groups - group - 1) / (groups - group);
        work.first_row = first;
        work.out = out + first * kOutStride + panel * kPanelChannels;
        kernel_of(course, count, work.fetched != nullptr)(work);
        work.fetched = nullptr;
      }
    }
    advance(tile, chunk);
  }
}

void vector_tile(const RowTile& tile, const std::int8_t* const* weights, const std::int16_t* const* weight_scales,
                 int panels, const VectorOptions& options, std::int64_t* out) {
  const auto weights_of = [&](int panel, const Chunk& chunk, Work& work) {
    work.weights = weights[panel] + chunk.at * kBlockCodes;
    if (weight_scales != nullptr)
      work.scales = weight_scales[panel] + chunk.at / options.blocks_per_vector * kPanelChannels;
  };
  run_tile(tile, panels, options, course_of(tile, options), weights_of, out);
}

}  // namespace

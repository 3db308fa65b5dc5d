// What this machine can do at most: bytes a second out of memory, and int8 operations a second of each instruction set.
// Usage: ceilings THREADS. Prints "NAME VALUE" lines, in units of 1e9 a second; an operation is a multiply or an add.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

enum { kReads = 80, kTrials = 20, kRounds = 500000, kChains = 12 };
static const size_t kBytes = (size_t)256 << 20;

static volatile int64_t sink;
static int threads;
static char* memory;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef int64_t wide __attribute__((vector_size(64), aligned(64)));

// Several streams at once and prefetching ahead: one stream does not keep enough lines in flight.
static void read_all(int thread) {
  enum { kStreams = 4, kAhead = 16 };
  const size_t lines = kBytes / (size_t)threads / kStreams / sizeof(wide);
  const wide* from = (const wide*)memory + lines * kStreams * (size_t)thread;
  wide sum[kStreams] = {{0}};
  for (size_t i = 0; i < lines; ++i)
    for (int j = 0; j < kStreams; ++j) {
      __builtin_prefetch(&from[lines * (size_t)j + i + kAhead]);
      sum[j] ^= from[lines * (size_t)j + i];
    }
  wide all = (sum[0] ^ sum[1]) ^ (sum[2] ^ sum[3]);
  sink = all[0] ^ all[7];
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) static void vnni(int thread) {
  (void)thread;
  __m512i sums[kChains], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(i);
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
    __asm__ volatile("" : "+v"(a), "+v"(b));
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  sink = _mm512_reduce_add_epi32(sums[0]);
}

__attribute__((target("avx2"))) static int64_t lanes(__m256i x) {
  int32_t values[8];
  _mm256_storeu_si256((__m256i*)values, x);
  int64_t sum = 0;
  for (int i = 0; i < 8; ++i) sum += values[i];
  return sum;
}

// Ordinary int8: every product is widened to int32 at once.
__attribute__((target("avx2"))) static void avx2_int8(int thread) {
  (void)thread;
  __m256i sums[kChains], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_epi32(i);
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kChains; ++i) {
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
      __asm__ volatile("" : "+x"(a), "+x"(b));
    }
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm256_add_epi32(sums[0], sums[i]);
  sink = lanes(sums[0]);
}

// 4-bit weights with vector scales: four products are added as int16 (16 elements of 8 channels in 4 registers of two
// 16-bit lanes a channel), then widened with the vector scale as the multiplier.
__attribute__((target("avx2"))) static void avx2_vector_scaled(int thread) {
  (void)thread;
  enum { kTiles = 4 };
  __m256i sums[kTiles], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5), scale = _mm256_set1_epi16(7);
  for (int i = 0; i < kTiles; ++i) sums[i] = _mm256_set1_epi32(i);
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kTiles; ++i) {
      __m256i dot = _mm256_maddubs_epi16(a, b);
      for (int j = 1; j < 4; ++j) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
        dot = _mm256_add_epi16(dot, _mm256_maddubs_epi16(a, b));
      }
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(dot, scale));
    }
  }
  for (int i = 1; i < kTiles; ++i) sums[0] = _mm256_add_epi32(sums[0], sums[i]);
  sink = lanes(sums[0]);
}
#elif defined(__aarch64__)
__attribute__((target("+dotprod"))) static void neon_dotprod(int thread) {
  (void)thread;
  int32x4_t sums[kChains];
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
  for (int i = 0; i < kChains; ++i) sums[i] = vdupq_n_s32(i);
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = vdotq_s32(sums[i], a, b);
    __asm__ volatile("" : "+w"(a), "+w"(b));
  }
  for (int i = 1; i < kChains; ++i) sums[0] = vaddq_s32(sums[0], sums[i]);
  sink = vaddvq_s32(sums[0]);
}
#endif

typedef void (*Work)(int thread);
struct Task {
  Work work;
  int thread;
};

static void* run(void* task) {
  ((struct Task*)task)->work(((struct Task*)task)->thread);
  return NULL;
}

// The most of `units` that all threads together did in a second, over a few trials.
static void report(const char* name, Work work, double units, int trials) {
  double best = 0;
  for (int trial = 0; trial < trials; ++trial) {
    pthread_t workers[64];
    struct Task tasks[64];
    const double start = now();
    for (int i = 1; i < threads; ++i) {
      tasks[i] = (struct Task){work, i};
      pthread_create(&workers[i], NULL, run, &tasks[i]);
    }
    work(0);
    for (int i = 1; i < threads; ++i) pthread_join(workers[i], NULL);
    const double rate = units / (now() - start) / 1e9;
    best = rate > best ? rate : best;
  }
  printf("%s %.3f\n", name, best);
}

int main(int count, char** arguments) {
  threads = count > 1 ? atoi(arguments[1]) : 1;
  if (threads < 1 || threads > 64) return 2;
  memory = aligned_alloc((size_t)2 << 20, kBytes + ((size_t)2 << 20));
  if (!memory) return 3;
#ifdef MADV_HUGEPAGE
  madvise(memory, kBytes, MADV_HUGEPAGE);
#endif
  memset(memory, 1, kBytes);
  report("read_bytes", read_all, (double)kBytes, kReads);
#if defined(__x86_64__)
  const double avx2 = 64.0 * kRounds * threads;
  if (__builtin_cpu_supports("avx512vnni")) report("avx512_vnni", vnni, 128.0 * kChains * kRounds * threads, kTrials);
  if (__builtin_cpu_supports("avx2")) {
    report("avx2", avx2_int8, avx2 * kChains, kTrials);
    report("avx2_vector_scaled", avx2_vector_scaled, avx2 * 16, kTrials);
  }
#elif defined(__aarch64__)
  report("neon_dotprod", neon_dotprod, 32.0 * kChains * kRounds * threads, kTrials);
#endif
  return 0;
}

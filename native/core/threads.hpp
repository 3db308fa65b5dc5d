// The caller's threads. Work is cut into small chunks that threads take as they come free: a static split waits for the
// slowest thread, which on a busy machine is many times slower than the rest.
#pragma once

#include <atomic>
#include <cstdint>

namespace vsquant {

struct ThreadPool {
  int threads = 1;
  // Runs task(0, context) ... task(count - 1, context), possibly at once, and returns when all have ended.
  void (*run)(int count, void (*task)(int index, void* context), void* context) = nullptr;
};

// body(chunk) for every chunk in 0..chunks-1, each exactly once. body must not throw.
template <class Body>
void for_each_chunk(const ThreadPool& pool, std::int64_t chunks, const Body& body) {
  if (pool.threads <= 1 || chunks <= 1 || pool.run == nullptr) {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body(chunk);
    return;
  }
  struct Shared {
    const Body* body;
    std::int64_t chunks;
    std::atomic<std::int64_t> next;
  } shared{&body, chunks, {0}};
  const auto worker = [](int, void* context) {
    auto& work = *static_cast<Shared*>(context);
    for (std::int64_t chunk; (chunk = work.next.fetch_add(1, std::memory_order_relaxed)) < work.chunks;)
      (*work.body)(chunk);
  };
  const int workers = chunks < pool.threads ? static_cast<int>(chunks) : pool.threads;
  pool.run(workers, worker, &shared);
}

}  // namespace vsquant

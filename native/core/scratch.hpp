// Memory that a thread keeps between calls, so that the steady state allocates nothing.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace vsquant {

// A buffer aligned to 64 bytes that only grows. Its contents do not survive get(). Use as
//   static thread_local Scratch scratch;  auto* codes = scratch.get<std::int8_t>(count);
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  template <class T>
  T* get(std::size_t count) {
    const std::size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
    if (bytes > capacity_) grow(bytes);
    return static_cast<T*>(data_);
  }

 private:
  void grow(std::size_t bytes) {
    std::free(data_);
    capacity_ = 0;
    data_ = std::aligned_alloc(64, bytes);
    if (data_ == nullptr) throw std::bad_alloc();
    capacity_ = bytes;
  }

  void* data_ = nullptr;
  std::size_t capacity_ = 0;
};

}  // namespace vsquant

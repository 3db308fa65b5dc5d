// The whole of a test framework: CHECK(condition) prints where it failed and makes the program's exit status 1.
#pragma once

#include <cstdio>

namespace vsquant::test {

inline int failures = 0;

inline void fail(const char* file, int line, const char* text) {
  ++failures;
  std::fprintf(stderr, "%s:%d: CHECK(%s) failed\n", file, line, text);
}

inline int result() { return failures == 0 ? 0 : 1; }

}  // namespace vsquant::test

#define CHECK(condition) \
  do {                   \
    if (!(condition)) ::vsquant::test::fail(__FILE__, __LINE__, #condition); \
  } while (false)

// What `vitrine benchmark` reports: a line of JSON a row as they come, or one table at the end.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <vitrine/layers/error.h>
#include <vitrine/pipelines/benchmark.h>
#include <vitrine/pipelines/commands/command.h>

namespace vitrine::command {

double megabytes(std::int64_t bytes);

class Report {
 public:
  Report(Console& console, DType dtype);  // measures the peak

  double peak() const { return peak_; }  // GFLOP/s of the matrix product

  void add(const BenchmarkRow& row);
  void fail(const std::string& name, const Error& error);
  int finish();  // the exit code

 private:
  Console& console_;
  double peak_;
  int failed_ = 0;
  std::vector<std::vector<std::string>> table_;
};

}  // namespace vitrine::command

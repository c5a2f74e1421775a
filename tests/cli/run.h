// Runs the built program as a user would, and gives what it printed, its exit code and how it ended.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

struct RunOptions {
  std::string input = "/dev/null";  // standard input
  std::string output;               // standard output, where it is not to be caught: "/dev/full"
  long long file_limit = -1;        // bytes that it may write into a file, as on a full disk
};

struct RunResult {
  int code = -1;  // exit code; -SIGNAL where a signal ended it
  std::string out, err;

  int error_lines() const;
};

// A program that runs. Output is caught in files, so that no pipe can fill up.
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments, const RunOptions& options = {});
  ~Program();  // ends it where it still runs
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void wait_until_it_catches(int signal) const;  // it has installed a handler
  void send(int signal) const;
  RunResult wait();

 private:
  pid_t pid_ = -1;
  std::string out_, err_;
};

RunResult run_vitrine(const std::vector<std::string>& arguments, const RunOptions& options = {});

// A picture of examples/images: "clothes/coat.png".
std::string example_image(std::string_view name);

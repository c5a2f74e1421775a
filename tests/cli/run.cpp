#include "cli/run.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

extern char** environ;

namespace {

using namespace std::chrono_literals;

constexpr auto kLongest = 300s;  // a program that hangs fails its test

std::string temporary_file() {
  std::string path = "/tmp/vitrine-cli-XXXXXX";
  const int file = mkstemp(path.data());
  if (file < 0) throw std::runtime_error("no temporary file");
  close(file);
  return path;
}

std::string take_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  unlink(path.c_str());
  return text;
}

// The soft limit of this process, which the child inherits, for as long as this lives.
class FileLimit {
 public:
  explicit FileLimit(long long bytes) : set_(bytes >= 0) {
    if (!set_) return;
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{static_cast<rlim_t>(bytes), before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileLimit() {
    if (set_) setrlimit(RLIMIT_FSIZE, &before_);
  }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;

 private:
  bool set_;
  rlimit before_{};
};

}  // namespace

int RunResult::error_lines() const { return static_cast<int>(std::count(err.begin(), err.end(), '\n')); }

Program::Program(const std::vector<std::string>& arguments, const RunOptions& options)
    : out_(options.output.empty() ? temporary_file() : std::string()), err_(temporary_file()) {
  std::vector<std::string> words{VITRINE_COMMAND};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, options.input.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out_.empty() ? options.output.c_str() : out_.c_str(), O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err_.c_str(), O_WRONLY, 0);
  const FileLimit limit(options.file_limit);
  const int error = posix_spawn(&pid_, VITRINE_COMMAND, &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot run " VITRINE_COMMAND);
}

Program::~Program() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Program::wait_until_it_catches(int signal) const {
  const auto give_up = std::chrono::steady_clock::now() + kLongest;
  while (std::chrono::steady_clock::now() < give_up) {
    std::ifstream status(fmt::format("/proc/{}/status", pid_));
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("SigCgt:") && (std::strtoull(line.c_str() + 7, nullptr, 16) >> (signal - 1) & 1)) return;
    std::this_thread::sleep_for(1ms);
  }
  throw std::runtime_error("it does not catch the signal");
}

void Program::send(int signal) const { kill(pid_, signal); }

RunResult Program::wait() {
  const auto give_up = std::chrono::steady_clock::now() + kLongest;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > give_up) throw std::runtime_error("the program does not end");
    std::this_thread::sleep_for(1ms);
  }
  pid_ = -1;
  RunResult result;
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  if (!out_.empty()) result.out = take_file(out_);
  result.err = take_file(err_);
  return result;
}

RunResult run_vitrine(const std::vector<std::string>& arguments, const RunOptions& options) {
  return Program(arguments, options).wait();
}

std::string example_image(std::string_view name) { return fmt::format("{}/examples/images/{}", VITRINE_SOURCE_DIR, name); }

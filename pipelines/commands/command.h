// What the commands of the program share: their table, the common options, output, progress and interruption.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include <vitrine/layers/context.h>
#include <vitrine/layers/dtype.h>
#include <vitrine/layers/error.h>

namespace CLI {
class App;
}

namespace vitrine::command {

// Exit codes. An interrupted run (Ctrl-C) keeps what it finished and gives 130, as a shell reports SIGINT.
constexpr int kSuccess = 0, kFailure = 1, kUsage = 2, kInterrupted = 130;

// Options that every command has.
struct CommonOptions {
  std::string device = "cpu";
  DType dtype = DType::f32;
  int threads = 0;  // 0: default_threads()
  bool quiet = false;
  bool json = false;
};

// A wrong combination of options that only the command can see: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Results go to standard output, which holds JSON only where --json was given; everything else goes to standard error.
class Console {
 public:
  const CommonOptions& options() const { return options_; }
  CommonOptions& options() { return options_; }

  // The text and a newline. Throws Error where standard output is full or closed.
  void print(std::string_view text);
  void print_json(const nlohmann::ordered_json& value, int indent = 2);  // indent -1: on one line
  void flush();

  void note(std::string_view text) const;  // one line on standard error, unless --quiet
  void warn(std::string_view text) const;  // the same, even with --quiet

 private:
  CommonOptions options_;
};

// Columns padded to their widest entry; those named in `right` are aligned to the right.
std::string format_table(const std::vector<std::vector<std::string>>& rows, std::span<const int> right = {});

// A line on standard error that says how far a long run is: redrawn in a terminal, else written every ten seconds.
class Progress {
 public:
  Progress(const Console& console, std::string what, std::int64_t total);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(std::int64_t done, std::string_view detail = {});
  void clear();  // before other output

 private:
  std::string what_;
  std::int64_t total_;
  bool shown_, terminal_, drawn_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

// Ctrl-C was pressed: long work polls this, stops and keeps what it finished. A second Ctrl-C ends the process at once.
bool interrupted();
void catch_interrupt();

// One command. `declare` adds its options to `app` and gives what runs it once they are parsed; that returns the exit
// code. Errors are thrown: main prints them as one line.
struct Command {
  std::string_view name, summary;
  std::string_view examples;  // shown below the help, a line each
  std::function<int(Console&)> (*declare)(CLI::App& app);
  std::string_view dtype_help = "Type to compute in (default f32)";
};

extern const Command kBenchmarkCommand, kClassifyCommand;
extern const Command kConvertCommand;
extern const Command kEvaluateCommand;
extern const Command kFeaturesCommand;
extern const Command kGenerateCommand;
extern const Command kInfoCommand;
extern const Command kInspectCommand;
extern const Command kModelsCommand;
extern const Command kSegmentCommand;
extern const Command kVerifyCommand;

}  // namespace vitrine::command

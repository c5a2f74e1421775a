// Pictures that a command is given, and the files that it writes.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <vitrine/pipelines/commands/command.h>
#include <vitrine/pipelines/image.h>

namespace vitrine::command {

struct Input {
  std::string name;                 // its path, or "-" for standard input
  std::string error;                // why it cannot be read, where that is known already
  std::vector<std::uint8_t> bytes;  // of standard input
};

// IMAGE, DIR (all pictures below it, sorted by path) or - (standard input, read at once). What cannot be opened becomes an
// input with an error, so that the others go on.
std::vector<Input> expand_inputs(std::span<const std::string> arguments);
Image read_input(const Input& input);  // RGB or grey; throws Error

// Lists what failed on standard error; the exit code of the run.
struct Failure {
  std::string name, message;
};
int report_failures(const Console& console, std::span<const Failure> failures, std::size_t inputs);

// Before long work: throws UsageError where the name of a result file does not end in one of `extensions`, Error where its
// folder is not there or it cannot be written.
void check_output(const std::string& option, const std::string& path, std::span<const std::string_view> extensions);
bool has_extension(const std::string& path, std::string_view extension);  // ".csv"; case does not count

// Names for the files of each input, by its stem: "cat", and "cat-2" for the next that is called so. None is given twice.
class OutputNames {
 public:
  std::string next(const std::string& input);

 private:
  std::set<std::string> used_;
};
// Makes the folder and those above it where they are missing; throws Error.
void make_folder(const std::string& path);

// A field of a CSV file, quoted where it must be.
std::string csv_field(std::string_view text);

}  // namespace vitrine::command

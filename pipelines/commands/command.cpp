#include <vitrine/pipelines/commands/command.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <unistd.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace vitrine::command {

namespace {

volatile std::sig_atomic_t interrupt_seen = 0;

void on_interrupt(int) { interrupt_seen = 1; }

[[noreturn]] void output_failed() {
  throw Error(fmt::format("standard output: {}", errno ? std::strerror(errno) : "write failed"));
}

// Characters, not bytes: what a terminal shows of UTF-8 text.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

void Console::print(std::string_view text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fputc('\n', stdout) == EOF) output_failed();
}

// Names of files may be any bytes: what is not UTF-8 is replaced, so that the output is JSON in any case.
void Console::print_json(const nlohmann::ordered_json& value, int indent) {
  print(value.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void Console::flush() {
  errno = 0;
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) output_failed();
}

void Console::note(std::string_view text) const {
  if (!options_.quiet) warn(text);
}

void Console::warn(std::string_view text) const {
  const std::string line = fmt::format("vitrine: {}\n", text);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

std::string format_table(const std::vector<std::vector<std::string>>& rows, std::span<const int> right) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - width_of(row[i]), ' ');
      const bool to_right = std::find(right.begin(), right.end(), static_cast<int>(i)) != right.end();
      line += (i ? "  " : "") + (to_right ? pad + row[i] : row[i] + pad);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += (text.empty() ? "" : "\n") + line;
  }
  return text;
}

Progress::Progress(const Console& console, std::string what, std::int64_t total)
    : what_(std::move(what)),
      total_(total),
      shown_(!console.options().quiet),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

void Progress::clear() {
  if (std::exchange(drawn_, false) && terminal_) std::fputs("\r\033[K", stderr);
}

void Progress::update(std::int64_t done, std::string_view detail) {
  using namespace std::chrono_literals;
  const auto now = std::chrono::steady_clock::now();
  if (!shown_ || now - last_ < (terminal_ ? 100ms : 10000ms)) return;
  last_ = now;
  drawn_ = true;
  const double share = total_ > 0 ? static_cast<double>(done) / static_cast<double>(total_) : 0.0;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  std::string line = fmt::format("{} {}/{} ({:.0f}%)", what_, done, total_, 100.0 * share);
  if (share > 0.0) line += fmt::format(", {:.0f} s left", seconds / share * (1.0 - share));
  if (!detail.empty()) line += fmt::format(", {}", detail);
  if (terminal_) {
    constexpr int kWidth = 24;
    const int filled = static_cast<int>(share * kWidth);
    line = fmt::format("\r\033[K[{}{}] {}", std::string(filled, '#'), std::string(kWidth - filled, '.'), line);
  } else {
    line += '\n';
  }
  std::fwrite(line.data(), 1, line.size(), stderr);
  std::fflush(stderr);
}

bool interrupted() { return interrupt_seen != 0; }

// No SA_RESTART: a blocked read of standard input must end. SA_RESETHAND: a second Ctrl-C ends the process.
void catch_interrupt() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}

}  // namespace vitrine::command

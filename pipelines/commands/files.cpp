#include <vitrine/pipelines/commands/files.h>

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include <fmt/format.h>

#include <vitrine/layers/file.h>

namespace vitrine::command {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPictures[] = {".jpg", ".jpeg", ".png", ".bmp", ".gif",  ".ppm", ".pgm",
                                          ".pnm", ".tga",  ".psd", ".tif", ".tiff", ".webp"};

constexpr std::size_t kMostInput = std::size_t{1} << 31;

std::vector<std::uint8_t> read_standard_input() {
  std::vector<std::uint8_t> bytes;
  std::uint8_t buffer[1 << 16];
  while (true) {
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR && !interrupted()) continue;
    if (n < 0) throw Error(fmt::format("standard input: {}", std::strerror(errno)));
    if (n == 0) return bytes;
    bytes.insert(bytes.end(), buffer, buffer + n);
    if (bytes.size() > kMostInput) throw Error("standard input: larger than 2 GiB, expected a picture");
  }
}

// The pictures below a folder. Links are not followed: a loop of them would not end.
void expand_folder(const fs::path& folder, std::vector<Input>& inputs) {
  std::error_code error;
  std::vector<std::string> found;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool picture = std::any_of(std::begin(kPictures), std::end(kPictures),
                                     [&](std::string_view extension) { return has_extension(name, extension); });
    std::error_code ignored;
    if (picture && name.front() != '.' && !it->is_directory(ignored)) found.push_back(it->path().string());
  }
  if (error) return inputs.push_back({folder.string(), fmt::format("{}: {}", folder.string(), error.message()), {}});
  if (found.empty())
    return inputs.push_back({folder.string(), fmt::format("{}: a folder without pictures", folder.string()), {}});
  std::sort(found.begin(), found.end());
  for (std::string& path : found) inputs.push_back({std::move(path), {}, {}});
}

}  // namespace

std::vector<Input> expand_inputs(std::span<const std::string> arguments) {
  if (std::count(arguments.begin(), arguments.end(), "-") > 1) throw UsageError("- (standard input) can be given once");
  std::vector<Input> inputs;
  for (const std::string& argument : arguments) {
    std::error_code error;
    if (argument == "-") {
      inputs.push_back({argument, {}, read_standard_input()});
    } else if (fs::is_directory(argument, error)) {
      expand_folder(argument, inputs);
    } else {
      inputs.push_back({argument, {}, {}});
    }
  }
  return inputs;
}

Image read_input(const Input& input) {
  if (!input.error.empty()) throw Error(input.error);
  return input.name == "-" ? decode_image(input.bytes, "standard input") : read_image(input.name);
}

int report_failures(const Console& console, std::span<const Failure> failures, std::size_t inputs) {
  if (failures.empty()) return kSuccess;
  if (inputs > 1) console.warn(fmt::format("{} of {} pictures failed:", failures.size(), inputs));
  for (const Failure& failure : failures) console.warn(failure.message);
  return kFailure;
}

void check_output(const std::string& option, const std::string& path, std::span<const std::string_view> extensions) {
  if (path.empty()) return;
  if (std::none_of(extensions.begin(), extensions.end(), [&](std::string_view e) { return has_extension(path, e); }))
    throw UsageError(fmt::format("{} {}: the name must end in {}", option, path, fmt::join(extensions, " or ")));
  const fs::path folder = fs::path(path).parent_path();
  std::error_code error;
  if (!folder.empty() && !fs::is_directory(folder, error))
    throw Error(fmt::format("{} {}: there is no folder {}", option, path, folder.string()));
  detail::check_writable(path);
}

bool has_extension(const std::string& path, std::string_view extension) {
  if (path.size() < extension.size()) return false;
  return std::equal(extension.begin(), extension.end(), path.end() - static_cast<std::ptrdiff_t>(extension.size()),
                    [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); });
}

std::string OutputNames::next(const std::string& input) {
  const std::string stem = input == "-" ? "stdin" : fs::path(input).stem().string();
  std::string name = stem;
  for (int i = 2; !used_.insert(name).second; ++i) name = fmt::format("{}-{}", stem, i);
  return name;
}

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error && !fs::is_directory(path, error)) error = std::make_error_code(std::errc::not_a_directory);
  if (error) throw Error(fmt::format("{}: cannot be used as a folder: {}", path, error.message()));
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

}  // namespace vitrine::command

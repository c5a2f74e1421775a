// Pictures that are none: one clear line each, exit code 1, nothing on standard output.
#include <catch.h>
#include <weights/files.h>

#include <unistd.h>

#include "cli/run.h"

namespace {

void check_failure(const std::string& path, const std::string& named) {
  INFO(path);
  for (const char* command : {"classify", "features"}) {
    std::vector<std::string> arguments{command, path, "--quiet"};
    const Folder folder;
    if (std::string(command) == "features") arguments.insert(arguments.end(), {"--out", folder / "f.npy"});
    const RunResult result = run_vitrine(arguments);
    INFO(result.err);
    CHECK(result.code == 1);
    CHECK(result.out.empty());
    CHECK(result.error_lines() == 1);
    CHECK(result.err.starts_with("vitrine: "));
    CHECK(result.err.find(named) != std::string::npos);
  }
}

std::string png_header(std::uint32_t width, std::uint32_t height) {
  std::string bytes("\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16);
  for (const std::uint32_t size : {width, height})
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(size >> shift & 0xff);
  return bytes + std::string("\x08\x02\0\0\0\0\0\0\0", 9);
}

}  // namespace

TEST_CASE("files that are no pictures") {
  const Folder folder;
  write_bytes(folder / "empty.png", "");
  write_bytes(folder / "text.png", "this is no picture, whatever its name says\n");
  const std::string jpeg = read_bytes(example_image("rocket.jpg"));
  write_bytes(folder / "cut.jpg", jpeg.substr(0, jpeg.size() / 3));
  write_bytes(folder / "header.jpg", jpeg.substr(0, 200));
  write_bytes(folder / "huge.png", png_header(20000, 20000));
  write_bytes(folder / "cut.png", read_bytes(example_image("coffee.png")).substr(0, 5000));
  for (const char* name : {"empty.png", "text.png", "cut.jpg", "header.jpg", "huge.png", "cut.png"})
    check_failure(folder / name, name);
}

TEST_CASE("paths that lead nowhere") {
  const Folder folder;
  check_failure(folder / "missing.png", "missing.png");
  check_failure(folder / "no such folder/x.png", "x.png");
  check_failure(folder.path(), "without pictures");
  std::filesystem::create_symlink(folder / "loop.png", folder / "loop.png");
  check_failure(folder / "loop.png", "loop.png");
  if (geteuid() != 0) {
    std::filesystem::copy_file(example_image("rocket.jpg"), folder / "locked.jpg");
    std::filesystem::permissions(folder / "locked.jpg", std::filesystem::perms::none);
    check_failure(folder / "locked.jpg", "ermission denied");
  } else {
    WARN("unreadable file not tried: root reads everything");
  }
}

TEST_CASE("nothing on standard input") {
  const RunResult result = run_vitrine({"classify", "-", "--quiet"});
  CHECK(result.code == 1);
  CHECK(result.error_lines() == 1);
  CHECK(result.err.find("standard input") != std::string::npos);
}

#include <catch.h>
#include <pipelines/fixtures.h>

#include <vitrine/pipelines/dataset.h>
#include <vitrine/weights/labels.h>

using namespace vitrine;
using namespace vitrine::test;
using Catch::Matchers::Contains;

namespace {

Bytes idx(std::initializer_list<std::uint32_t> sizes, const Bytes& values) {
  Bytes file{0, 0, 8, static_cast<std::uint8_t>(sizes.size())};
  for (const std::uint32_t size : sizes) {
    for (int shift = 24; shift >= 0; shift -= 8) file.push_back(static_cast<std::uint8_t>(size >> shift));
  }
  file.insert(file.end(), values.begin(), values.end());
  return file;
}

void save_gz(const std::string& path, const Bytes& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
}

Bytes counted(std::size_t count) {
  Bytes values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<std::uint8_t>(i);
  return values;
}

}  // namespace

TEST_CASE("IDX files, plain and compressed, test before training") {
  TemporaryFolder folder;
  const Bytes images = idx({3, 2, 4}, counted(24)), labels = idx({3}, {2, 0, 1});
  save(folder / "train-images-idx3-ubyte", images);
  save_gz(folder / "train-labels-idx1-ubyte.gz", labels);
  const std::string spec = "idx:" + folder / "";
  const std::vector<std::string> classes{"a", "b", "c"};
  {
    const auto data = open_dataset(spec, classes);
    CHECK(data->size() == 3);
    CHECK(data->label(0) == 2);
    CHECK(data->image(1).pixels == Bytes{8, 9, 10, 11, 12, 13, 14, 15});
    CHECK(data->image(1).width == 4);
    CHECK(data->name(2) == "train-images-idx3-ubyte[2]");
    CHECK(data->classes() == classes);
  }
  save_gz(folder / "t10k-images-idx3-ubyte.gz", idx({1, 2, 2}, {9, 8, 7, 6}));
  CHECK_THAT(error_of([&] { open_dataset(spec); }), Contains("t10k-labels"));
  save(folder / "t10k-labels-idx1-ubyte", idx({1}, {1}));
  const auto data = open_dataset(spec);
  CHECK(data->size() == 1);
  CHECK(data->image(0).pixels == Bytes{9, 8, 7, 6});

  const auto as_fashion = open_dataset("fashion-mnist:" + folder / "");
  CHECK(as_fashion->classes()[1] == "Trouser");
  CHECK(open_dataset("fashion-mnist-train:" + folder / "")->size() == 3);
}

TEST_CASE("IDX headers are checked against the file") {
  TemporaryFolder folder;
  const std::string spec = "idx:" + folder / "";
  const auto error_with = [&](const Bytes& images, const Bytes& labels, bool packed = false) {
    packed ? save_gz(folder / "t10k-images-idx3-ubyte", images) : save(folder / "t10k-images-idx3-ubyte", images);
    save(folder / "t10k-labels-idx1-ubyte", labels);
    return error_of([&] { open_dataset(spec, std::vector<std::string>{"a", "b"}); });
  };
  const Bytes labels = idx({2}, {0, 1});
  CHECK(error_with(idx({2, 2, 2}, counted(8)), labels).empty());
  for (const bool packed : {false, true}) {
    CHECK_THAT(error_with(idx({2, 2, 2}, counted(7)), labels, packed), Contains("truncated"));
    CHECK_THAT(error_with(idx({2, 2, 2}, counted(9)), labels, packed), Contains("more"));
    CHECK_THAT(error_with(idx({60000, 28, 28}, counted(8)), labels, packed), Contains("truncated"));
    CHECK_THAT(error_with(idx({0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}, {}), labels, packed), Contains("axis 0"));
    CHECK_THAT(error_with(idx({0, 2, 2}, {}), labels, packed), Contains("axis 0"));
  }
  CHECK_THAT(error_with({}, labels), Contains("not an IDX file"));
  CHECK_THAT(error_with({'h', 'e', 'l', 'l', 'o'}, labels), Contains("not an IDX file"));
  CHECK_THAT(error_with(idx({2, 4}, counted(8)), labels), Contains("not an IDX file"));
  CHECK_THAT(error_with(idx({2, 2, 2}, counted(8)), idx({3}, {0, 1, 0})), Contains("3 labels"));
  CHECK_THAT(error_with(idx({2, 2, 2}, counted(8)), idx({2}, {0, 2})), Contains("label 2"));
  Bytes damaged = idx({2, 2, 2}, counted(8));
  save_gz(folder / "good.gz", damaged);
  damaged = load(folder / "good.gz");
  for (std::size_t i = 10; i < damaged.size(); ++i) {
    Bytes bad = damaged;
    bad[i] ^= 0xFF;
    error_with(bad, labels);  // an error or, where only the checksum differs, not; never a crash
  }
}

TEST_CASE("folders named by synset are classes of ImageNet") {
  TemporaryFolder folder;
  for (const char* name : {"n01443537", "n15075141"}) {
    std::filesystem::create_directory(folder / name);
    save(folder / name + "/a.png", make_png(1, 1, 8, 0, {0, 1}));
  }
  std::vector<std::string> names;
  for (const ImageNetClass& known : imagenet_classes()) names.push_back(known.name);
  const std::string spec = "folder:" + folder / "";
  const auto data = open_dataset(spec, names);
  REQUIRE(data->size() == 2);
  CHECK(data->label(0) == 1);
  CHECK(data->label(1) == 999);
  names[1] = "carp";  // another model of 1,000 classes
  CHECK(open_dataset(spec, names)->label(1) == 1);
}

TEST_CASE("a folder a class, by name or by order") {
  TemporaryFolder folder;
  for (const char* name : {"dog", "cat", "cat/more", ".hidden"}) std::filesystem::create_directory(folder / name);
  const auto png = [](std::uint8_t level) { return make_png(1, 1, 8, 0, {0, level}); };
  save(folder / "dog/b.png", png(1));
  save(folder / "dog/a.PNG", png(2));
  save(folder / "cat/more/c.png", png(3));
  save(folder / "cat/notes.txt", {'x'});
  save(folder / "cat/broken.jpg", {0xFF, 0xD8, 0xFF});
  save(folder / ".hidden/d.png", png(4));
  const std::string spec = "folder:" + folder / "";

  const auto by_order = open_dataset(spec);
  REQUIRE(by_order->size() == 4);
  CHECK(by_order->classes() == std::vector<std::string>{"cat", "dog"});
  CHECK(by_order->label(0) == 0);
  CHECK(by_order->label(3) == 1);
  CHECK(by_order->name(2) == folder / "dog/a.PNG");
  CHECK(by_order->image(2).pixels == Bytes{2, 2, 2});
  CHECK_THAT(error_of([&] { by_order->image(0); }), Contains("broken.jpg: truncated"));

  const auto by_name = open_dataset(spec, std::vector<std::string>{"bird", "dog", "cat"});
  CHECK(by_name->label(0) == 2);
  CHECK(by_name->label(3) == 1);
  CHECK(by_name->classes().size() == 3);

  CHECK(open_dataset(spec, std::vector<std::string>{"x", "y"})->label(3) == 1);
  CHECK_THAT(error_of([&] { open_dataset(spec, std::vector<std::string>{"dog", "y"}); }), Contains("cat"));
  CHECK_THAT(error_of([&] { open_dataset(spec, std::vector<std::string>{"one"}); }), Contains("2 folders"));
}

TEST_CASE("wrong data sets are named") {
  TemporaryFolder folder;
  CHECK_THAT(error_of([] { open_dataset("mnist"); }), Contains("mnist: unknown"));
  CHECK_THAT(error_of([] { open_dataset("folder:"); }), Contains("folder:DIR"));
  CHECK_THAT(error_of([] { open_dataset("folder:/nowhere/at/all"); }), Contains("/nowhere/at/all"));
  CHECK_THAT(error_of([&] { open_dataset("folder:" + folder / ""); }), Contains("no sub-folders"));
  CHECK_THAT(error_of([&] { open_dataset("idx:" + folder / ""); }), Contains("t10k-images"));
  std::filesystem::create_directory(folder / "empty");
  CHECK_THAT(error_of([&] { open_dataset("folder:" + folder / ""); }), Contains("no pictures"));
}

#include <catch.h>
#include <pipelines/fixtures.h>

#include <vitrine/pipelines/preprocess.h>

using namespace vitrine;
using namespace vitrine::test;

TEST_CASE("the photograph model's canvases come out to the byte") {
  const std::filesystem::path shared(VITRINE_SHARED_DIR);
  if (!std::filesystem::exists(shared / "goldens/focus/coffee.224.png")) {
    WARN("skipped: no reference canvases in " << shared.string());
    return;
  }
  const PreprocessConfig config = parse_preprocess(R"({"size": 224, "resize": "longest side, area"})");
  for (const std::string name : {"astronaut", "chelsea", "coffee"}) {
    INFO(name);
    const Image photo = read_image((shared / "images" / (name + ".png")).string());
    CHECK(fit_image(photo, config).pixels == read_image((shared / "goldens/focus" / (name + ".224.png")).string()).pixels);
  }
}

#include <cstdlib>
#include <string>

#include <catch.h>

#include <vitrine/layers/error.h>
#include <vitrine/weights/labels.h>
#include <vitrine/weights/shipped.h>
#include <vitrine/weights/sources.h>

#include "files.h"

using namespace vitrine;

TEST_CASE("the registry lists the shipped models, and the clothes classifier is there") {
  const auto model = find_shipped("nat_fashion");
  REQUIRE(model);
  CHECK(model->present);
  CHECK(model->classes.size() == 10);
  CHECK(model->family == "nat");
  CHECK(model->sha256.size() == 64);
  const auto source = open_weights(model->file);
  CHECK(source->names().size() == 65);
  CHECK(source->metadata().at("architecture") == model->architecture);
  CHECK(find_shipped("vit_small_patch14_focus"));
  CHECK_FALSE(find_shipped("nat_fashion2"));
}

TEST_CASE("the classes of ImageNet-1k are there") {
  const auto& classes = imagenet_classes();
  REQUIRE(classes.size() == 1000);
  CHECK(classes[0].synset == "n01440764");
  CHECK(classes[0].name == "tench, Tinca tinca");
  CHECK(classes[281].name == "tabby, tabby cat");
  CHECK(classes[999].name == "toilet tissue, toilet paper, bathroom tissue");
  for (std::size_t i = 1; i < classes.size(); ++i) CHECK(classes[i - 1].synset < classes[i].synset);
}

TEST_CASE("the photograph model has what its file says, where it was fetched") {
  const auto model = find_shipped("vit_small_patch14_focus");
  REQUIRE(model);
  if (!model->present) {
    WARN("skipped: " << model->file << " was not fetched");
    return;
  }
  const auto source = open_weights(model->file);
  CHECK(source->names().size() == 194);
  CHECK(source->find("pos_embed")->shape == Shape{1, 1370, 384});
  CHECK(source->find("blocks.11.attn.qkv.weight")->dtype == DType::f16);
  CHECK(source->find("head.bn.2.running_var")->dtype == DType::f32);
}

TEST_CASE("VITRINE_DATA names the data or is refused") {
  const std::string found = data_directory();
  setenv("VITRINE_DATA", found.c_str(), 1);
  CHECK(data_directory() == found);
  const Folder folder;
  setenv("VITRINE_DATA", folder.path().c_str(), 1);
  CHECK_THROWS_AS(data_directory(), Error);
  unsetenv("VITRINE_DATA");
  CHECK(data_directory() == found);
}

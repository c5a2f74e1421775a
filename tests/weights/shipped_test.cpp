#include <cstdlib>
#include <string>

#include <catch.h>

#include <vitrine/layers/error.h>
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

// What a family file gives to the registry (backbones/registry.cpp): its variants as a table and a builder.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <vitrine/backbones/arguments.h>
#include <vitrine/backbones/backbone.h>
#include <vitrine/weights/sources.h>

namespace vitrine::detail {

// One row: a published model name, its constructor arguments as a JSON object, and its preprocessing where it differs
// from the family's defaults, as a JSON object with timm's keys (input_size, crop_pct, crop_mode, interpolation, mean, std).
struct Variant {
  std::string_view name;
  std::string_view arguments;
  std::string_view preprocess;
  std::string_view top1 = "";  // ModelEntry::top1
};

struct Family {
  std::string_view name;
  std::string_view source;     // paper; published code
  std::string_view attention;  // what mixes tokens, in a few words
  std::span<const Variant> variants;
  // `arguments` are merged: the variant's, then the user's. The registry has added num_classes where the user gave none
  // and the weights have a head; afterwards it calls weights.check() and fills in everything of ModelInfo but
  // num_classes and num_features. Throws Error for an unknown argument.
  std::unique_ptr<Backbone> (*build)(const Variant& variant, const Weights& weights, const Arguments& arguments);
  // The publisher's class names ("NAT"), for building by arguments alone; not listed.
  std::span<const Variant> constructors = {};
  std::string_view preprocess = "{}";  // the family's defaults, over those of PreprocessConfig
  std::string_view head = "head";      // path of the last linear layer, whose rows are the classes
  // Published weights of a variant, NAME.TAG: arguments and preprocessing where they differ from the variant's. Listed
  // only by patterns with a dot.
  std::span<const Variant> pretrained = {};
  std::span<const NameMap> name_maps = {};  // the first whose marker is there counts
};

// Which of `count` intermediates IntermediatesOptions::indices ask for: all where empty, negative ones counted from the
// end. Throws Error for one out of range.
std::vector<bool> wanted_indices(std::span<const int> indices, int count, std::string_view model);

// The families, in the order of listing: NAME stands for the `constinit const Family kNAMEFamily` that a family's file defines.
// clang-format off
#define VITRINE_FAMILIES(X) \
  X(Vit)                    \
  X(Deit)                   \
  X(Eva)                    \
  X(Beit)                   \
  X(Nat)                    \
  X(DinatS)                 \
  X(NatIsotropic)           \
  X(ResNet)                 \
  X(ConvNeXt)               \
  X(MlpMixer)               \
  X(PoolFormer)             \
  X(FocalNet)               \
  X(HorNet)                 \
  X(LitV2)                  \
  X(PatchConvNet)           \
  X(Flowformer)             \
  X(BiFormer)               \
  X(AgentCswin)             \
  X(AgentDeit)              \
  X(AgentPvt)               \
  X(AgentSwin)              \
  X(InlineCswin)            \
  X(InlineDeit)             \
  X(InlinePvt)              \
  X(InlineSwin)             \
  X(FlattenCswin)           \
  X(FlattenPvt)             \
  X(FlattenPvtV2)           \
  X(FlattenSwin)            \
  X(Ravlt)                  \
  X(TransNext)              \
  X(MohTransNext)           \
  X(VitaeVsa)               \
  X(Swin)                   \
  X(SwinV2)                 \
  X(Davit)                  \
  X(Maxxvit)                \
  X(HaloNet)
// clang-format on
#define VITRINE_FAMILY(NAME) extern const Family k##NAME##Family;
VITRINE_FAMILIES(VITRINE_FAMILY)
#undef VITRINE_FAMILY
std::span<const Family* const> families();

}  // namespace vitrine::detail

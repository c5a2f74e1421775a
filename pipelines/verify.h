// Reference cases: files that say what an operator, a backbone or a resize must answer to a synthetic input.
//
// Four forms are read, told apart by what a case holds: attention operators ("operator"), backbones ("source" and
// "parameters"), pictures resized by Pillow ("filter"), generation ("kind": a sampler, a network, a tokenizer or a pipeline).
// Other files that a case names lie relative to the file of cases. Everything is built from what a case says
// (operator and attributes, source and arguments), never from its name.
//
// Bounds: f32 attention max |a - b| <= 1e-5 of the largest reference value; f32 backbones 1e-4 (logits) and 5e-4
// (features, pre_logits) of the output's standard deviation; bf16 and f16 relative L2 distance 0.01 (attention), 0.02 (logits)
// and 0.05 (features, pre_logits: a whole map gathers what averaging would hide; measured up to 0.023),
// for FocalNet and DaViT 0.045 and 0.1; generation as each runner's table says, from the cases' GENERATION.md; resizing equal
// bytes, for JPEG sources 2 levels, since decoders differ.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include <vitrine/layers/dtype.h>
#include <vitrine/layers/export.h>

namespace vitrine {

// One case's result: the numbers of its worst output (measured over bound), NaN where there are none.
struct VerifyRow {
  std::string name;
  std::string kind;   // the operator, "backbone", "resize", or the case's own kind
  std::string dtype;  // in which it was computed
  double max_abs = 0, rel_l2 = 0;
  double bound = 0;                      // of `measure`
  std::string_view measure = "max_abs";  // or "rel_l2"
  std::string output;                    // the worst output's name
  bool ok = false;
  std::string message;  // what failed, one line
  std::string note;     // what a reader of the numbers must know, else empty
};

struct VerifyOptions {
  std::string only;  // ECMAScript, searched in the case's name; empty: all
  DType dtype = DType::f32;
  std::string impl{};               // a candidate of attention operators instead of the best; layers choose theirs
  std::function<bool()> cancelled;  // asked before each case
};

// Runs the cases of one file in order and gives each result to `on_row`; returns how many ran. What a case does wrong
// (unknown kind, missing parameters, too large a difference) is in its row; throws Error where the file cannot be read
// or is not of these forms, and for a bad regular expression.
VITRINE_API int verify_file(const std::string& path, const VerifyOptions& options,
                            const std::function<void(const VerifyRow&)>& on_row);

}  // namespace vitrine

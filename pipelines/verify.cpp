#include <vitrine/pipelines/verify.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <fstream>
#include <limits>
#include <optional>
#include <regex>
#include <sstream>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/detail/verify.h>
#include <vitrine/pipelines/detail/verify_generation.h>

namespace vitrine {
namespace detail {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// "[1, 17, 3]" of a position in the flattened tensor.
std::string coordinates(std::int64_t flat, const Shape& shape) {
  Shape at = shape;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    at[axis] = flat % shape[axis];
    flat /= shape[axis];
  }
  return at.to_string();
}

}  // namespace

void judge(const Tensor& output, const Tensor& stored, const Judgement& judgement, VerifyRow& row) {
  const std::int64_t stride = judgement.stride;
  const std::int64_t count = stride > 0 ? (output.numel() + stride - 1) / stride : -1;
  if (stored.numel() != count || (stride == 1 && stored.rank() == output.rank() && !(stored.shape() == output.shape())))
    throw Error(fmt::format("{}: shape is {}, expected {} values of stride {} as {}", judgement.output,
                            output.shape().to_string(), stored.numel(), stride, stored.shape().to_string()));
  const Tensor a = output.to(Device{}).contiguous().to(DType::f32), b = stored.contiguous().to(DType::f32);
  const float *x = a.data<float>(), *y = b.data<float>();
  const bool by_value = judgement.measure == "max_abs";
  double max_abs = 0, difference = 0, reference = 0;
  std::int64_t first_bad = -1, worst = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double d = std::abs(static_cast<double>(x[i * stride]) - y[i]);
    if (!(d <= max_abs)) {  // NaN stays the maximum
      if (!std::isnan(max_abs)) max_abs = d, worst = i;
    }
    if (first_bad < 0 && !(d <= judgement.bound)) first_bad = i;
    difference += d * d;
    reference += static_cast<double>(y[i]) * y[i];
  }
  const double rel_l2 = reference > 0 ? std::sqrt(difference / reference) : std::sqrt(difference);
  const double measured = by_value ? max_abs : rel_l2;
  const bool ok = measured <= judgement.bound;
  if (!ok) {
    const std::int64_t shown = by_value ? first_bad : worst;
    const std::string text = fmt::format("{}: {} {:.3g}, bound {:.3g}; {} at {}: {:.7g}, expected {:.7g}", judgement.output,
                                         judgement.measure, measured, judgement.bound, by_value ? "first" : "largest",
                                         coordinates(shown * stride, output.shape()), x[shown * stride], y[shown]);
    // The first output out of bounds names the stage; later ones follow from it.
    if (row.message.empty()) row.message = text;
  }
  const auto excess = [](double value, double bound) {
    return std::isnan(value) ? INFINITY : bound > 0 ? value / bound : value > 0 ? INFINITY : 0;
  };
  const double kept = row.measure == "max_abs" ? row.max_abs : row.rel_l2;
  if (!row.output.empty() && excess(measured, judgement.bound) <= excess(kept, row.bound)) return;
  row.max_abs = max_abs;
  row.rel_l2 = rel_l2;
  row.bound = judgement.bound;
  row.measure = judgement.measure;
  row.output = judgement.output;
}

std::string path_in(const CaseContext& context, const Json& file) { return context.folder + file.get<std::string>(); }

Shape shape_of(const Json& sizes) {
  Shape shape;
  if (!sizes.is_array() || sizes.size() > Shape::kMaxRank)
    throw Error(fmt::format("shape is {}, expected a list of sizes", sizes.dump()));
  for (const Json& size : sizes) {
    if (!size.is_number_integer() || size.get<std::int64_t>() < 0)
      throw Error(fmt::format("shape is {}, expected a list of sizes", sizes.dump()));
    shape.push_back(size.get<std::int64_t>());
  }
  checked_numel(shape, DType::f32);
  return shape;
}

std::vector<std::pair<std::string, Shape>> entries_of(const Json& parameters) {
  std::vector<std::pair<std::string, Shape>> entries;
  if (parameters.is_object()) {
    for (const auto& [name, sizes] : parameters.items()) entries.emplace_back(name, shape_of(sizes));
  } else {
    for (const Json& pair : parameters) entries.emplace_back(pair.at(0).get<std::string>(), shape_of(pair.at(1)));
  }
  return entries;
}

Json read_json(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  if (!file || !(text << file.rdbuf())) throw Error(fmt::format("{}: cannot be read", path));
  try {
    return Json::parse(text.str());
  } catch (const Json::exception& error) {
    throw Error(fmt::format("{}: not JSON: {}", path, error.what()));
  }
}

void check_members(const Json& object, std::initializer_list<std::string_view> known, std::string_view what) {
  const std::vector<std::string> names(known.begin(), known.end());
  for (const auto& [name, value] : object.items())
    if (std::find(names.begin(), names.end(), name) == names.end())
      throw Error(fmt::format("unknown {} '{}'{}", what, name, suggest_names(name, names)));
}

}  // namespace detail

namespace {

using detail::CaseContext;
using detail::CaseRunner;
using detail::Json;

// The form of a case: what to call it, and what runs it (null: nothing does).
struct Form {
  std::string kind;
  CaseRunner run = nullptr;
  std::string_view dtype;  // empty: the one asked for
};

std::optional<Form> form_of(const Json& entry) {
  const auto has = [&](const char* key) { return entry.contains(key); };
  if (has("operator")) return Form{entry["operator"].get<std::string>(), detail::run_attention_case, ""};
  if (has("kind")) {
    const auto kind = entry["kind"].get<std::string>();
    return Form{kind, detail::generation_runner(kind), ""};
  }
  if (has("filter")) return Form{"resize", detail::run_resize_case, "u8"};
  if (has("source") && has("parameters")) return Form{"backbone", detail::run_backbone_case, ""};
  return std::nullopt;
}

VerifyRow run_case(const Json& entry, const std::string& name, const CaseContext& context) {
  VerifyRow row;
  row.name = name;
  row.dtype = name_of(context.dtype);
  try {
    const auto form = form_of(entry);
    if (!form) throw Error("unknown kind of case: no operator, kind, filter, or source with parameters");
    row.kind = form->kind;
    if (!form->dtype.empty()) row.dtype = form->dtype;
    if (form->run == nullptr) throw Error(fmt::format("unknown kind '{}'", form->kind));
    form->run(entry, context, row);
    if (row.output.empty()) throw Error("the case has no outputs");
    row.ok = row.message.empty();
  } catch (const Json::exception& error) {
    row.message = fmt::format("malformed case: {}", error.what());
  } catch (const Error& error) {
    row.message = error.what();
  }
  if (row.output.empty()) row.max_abs = row.rel_l2 = row.bound = detail::kNaN;
  return row;
}

}  // namespace

int verify_file(const std::string& path, const VerifyOptions& options, const std::function<void(const VerifyRow&)>& on_row) {
  std::regex only;
  try {
    only.assign(options.only, std::regex::ECMAScript);
  } catch (const std::regex_error& error) {
    throw Error(fmt::format("--only '{}': not a regular expression: {}", options.only, error.what()));
  }
  const Json root = detail::read_json(path);
  const Json* cases = root.is_object() && root.contains("cases") ? &root["cases"] : &root;
  if (!cases->is_array()) throw Error(fmt::format("{}: not a file of cases: expected a list, or an object with \"cases\"", path));
  const auto slash = path.find_last_of('/');
  const CaseContext context{slash == std::string::npos ? "" : path.substr(0, slash + 1), options.dtype, options.impl};
  // A list that does not hold named cases is a mistake in the file, found before anything runs.
  std::vector<std::string> names;
  for (const Json& entry : *cases) {
    if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string())
      throw Error(fmt::format("{}: case {} has no name", path, names.size()));
    names.push_back(entry["name"].get<std::string>());
  }
  int count = 0;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!std::regex_search(names[i], only)) continue;
    if (options.cancelled && options.cancelled()) break;
    on_row(run_case((*cases)[i], names[i], context));
    ++count;
  }
  return count;
}

}  // namespace vitrine

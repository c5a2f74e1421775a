// Files of cases that are wrong, and cases that are: each is one line, never a crash.
#include <cmath>
#include <string>
#include <vector>

#include <catch.h>
#include <pipelines/fixtures.h>

#include <vitrine/pipelines/verify.h>

using namespace vitrine;
using namespace vitrine::test;

namespace {

const std::string kData = VITRINE_SOURCE_DIR "/tests/data/goldens/";

void save_text(const std::string& path, const std::string& text) { save(path, Bytes(text.begin(), text.end())); }

std::vector<VerifyRow> rows_of(const std::string& path, const VerifyOptions& options = {}) {
  std::vector<VerifyRow> rows;
  const int ran = verify_file(path, options, [&](const VerifyRow& row) { rows.push_back(row); });
  CHECK(ran == static_cast<int>(rows.size()));
  return rows;
}

// The message of the only case in a file of `text`; files that it names are looked for among the small references.
std::string message_of(const std::string& text) {
  const TemporaryFolder folder;
  save_text(folder / "cases.json", text);
  for (const char* file : {"attention", "backbones"}) std::filesystem::create_symlink(kData + file, folder / file);
  const auto rows = rows_of(folder / "cases.json");
  REQUIRE(rows.size() == 1);
  CHECK_FALSE(rows[0].ok);
  CHECK(rows[0].message.find('\n') == std::string::npos);
  return rows[0].message;
}

const std::string kQuery = R"("query": {"name": "attention.one_query_one_key.query", "shape": [2, 1, 2, 32]},)"
                           R"("key": {"name": "attention.one_query_one_key.key", "shape": [2, 1, 2, 32]})";
const std::string kValue = R"(, "value": {"name": "attention.one_query_one_key.value", "shape": [2, 1, 2, 32]})";

std::string attention_case(const std::string& attributes, const std::string& inputs,
                           const std::string& key = "one_query_one_key") {
  return R"({"cases": [{"name": "a", "operator": "attention", "attributes": {)" + attributes + R"(}, "inputs": {)" + inputs +
         R"(}, "parameters": {}, "output": {"file": "attention/attention.safetensors", "key": ")" + key +
         R"(", "shape": [2, 1, 2, 32]}}]})";
}

std::string backbone_case(const std::string& source, const std::string& arguments, const std::string& checksum) {
  return R"([{"name": "b", "source": "somewhere: )" + source + R"(", "arguments": )" + arguments +
         R"(, "input": {"name": "input", "shape": [1, 3, 32, 32]}, "parameters": "backbones/parameters/nat_mini.json",)" +
         R"("parameters_checksum": ")" + checksum + R"(", "file": "backbones/nat_mini.safetensors", "outputs": )" +
         R"({"logits": {"shape": [1, 1000], "stride": 1, "count": 1000, "std": 1.0}}}])";
}

constexpr const char* kNatMini = "0094ad3cdee95798";

}  // namespace

TEST_CASE("cases are chosen by a regular expression in their names and stop when asked to") {
  const std::string file = kData + "resize/cases.json";
  const auto all = rows_of(file);
  CHECK(all.size() == 8);
  CHECK(rows_of(file, {.only = "^1[12]_", .dtype = DType::f32, .cancelled = {}}).size() == 2);
  CHECK(rows_of(file, {.only = "nothing", .dtype = DType::f32, .cancelled = {}}).empty());
  int asked = 0;
  CHECK(rows_of(file, {.only = "", .dtype = DType::f32, .cancelled = [&] { return ++asked > 3; }}).size() == 3);
  CHECK(error_of([&] { rows_of(file, {.only = "(", .dtype = DType::f32, .cancelled = {}}); }).find("not a regular expression") !=
        std::string::npos);
}

TEST_CASE("a case's result has its numbers") {
  const auto rows = rows_of(kData + "attention/cases.json", {.only = "cross_d32", .dtype = DType::bf16, .cancelled = {}});
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].name == "attention.cross_d32");
  CHECK(rows[0].kind == "attention");
  CHECK(rows[0].dtype == "bf16");
  CHECK(rows[0].measure == "rel_l2");
  CHECK(rows[0].bound == 0.01);
  CHECK(rows[0].rel_l2 > 0.0);
  CHECK(rows[0].max_abs > 0.0);
  CHECK(rows[0].ok);
}

TEST_CASE("files that are no cases are refused") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(rows_of(folder / "missing.json"), contains("missing.json: cannot be read"));
  save_text(folder / "text.json", "cases");
  CHECK_THROWS_WITH(rows_of(folder / "text.json"), contains("text.json: not JSON"));
  save_text(folder / "object.json", R"({"metadata": {}})");
  CHECK_THROWS_WITH(rows_of(folder / "object.json"), contains("not a file of cases"));
  save_text(folder / "unnamed.json", R"([{"name": "a"}, {"operator": "attention"}])");
  CHECK_THROWS_WITH(rows_of(folder / "unnamed.json"), contains("case 1 has no name"));
}

TEST_CASE("cases of unknown kinds fail and say so") {
  CHECK(message_of(R"([{"name": "a", "operator": "telepathy", "attributes": {}}])") == "unknown kind 'telepathy'");
  CHECK(message_of(R"({"cases": [{"name": "a", "kind": "crystal_ball"}]})") == "unknown kind 'crystal_ball'");
  CHECK_THAT(message_of(R"([{"name": "a"}])"), contains("unknown kind of case"));
  CHECK_THAT(message_of(backbone_case("nat_mimi", "{}", kNatMini)), contains("unknown model 'nat_mimi'") && contains("nat_mini"));
}

TEST_CASE("malformed cases fail with what is wrong") {
  CHECK(message_of(attention_case("", kQuery)) == "the case has no input 'value'");
  CHECK_THAT(message_of(attention_case(R"("sharpness": 3)", kQuery + kValue)), contains("unknown attribute 'sharpness'"));
  CHECK_THAT(message_of(attention_case(R"("scale": "large")", kQuery + kValue)), contains("malformed case"));
  CHECK_THAT(message_of(attention_case("", R"("query": {"name": "q", "shape": [2, -1]})")), contains("expected a list of sizes"));
  CHECK_THAT(message_of(attention_case("", R"("query": {"name": "q", "shape": [1099511627776, 1099511627776]})")),
             contains("1099511627776"));
  CHECK_THAT(message_of(attention_case("", kQuery + kValue, "nothing")), contains("nothing"));
  CHECK_THAT(message_of(R"([{"name": "a", "operator": "attention"}])"), contains("malformed case"));
}

TEST_CASE("what differs fails with the place and both values") {
  const std::string other = R"(, "value": {"name": "another", "shape": [2, 1, 2, 32]})";
  CHECK_THAT(message_of(attention_case("", kQuery + other)),
             contains("output: max_abs") && contains("first at [0, 0, 0, 0]") && contains("expected"));
}

TEST_CASE("a backbone's parameters and arguments must be the case's") {
  CHECK_THAT(message_of(backbone_case("nat_mini", "{}", "0000000000000000")),
             contains("checksum of the parameters is 0094ad3cdee95798"));
  CHECK_THAT(message_of(backbone_case("nat_mini", R"({"kernel_size": 5})", kNatMini)),
             contains("rpb is [2, 13, 13], expected [2, 9, 9]"));
  CHECK_THAT(message_of(backbone_case("nat_mini", R"({"kernels": 5})", kNatMini)), contains("unknown argument kernels=5"));
}

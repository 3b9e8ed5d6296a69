// An interpreter that answers the last class, and the bytes of the model on standard output.
#include <cstdio>

#include "model.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

int Classify(const uint8_t* pixels);

static int8_t image[kModelImageSide * kModelImageSide * 3];
static int8_t logits[kModelClasses];
static TfLiteTensor input_tensor{{image}}, output_tensor{{logits}};

namespace tflite {
const Model* GetModel(const void* buffer) { return static_cast<const Model*>(buffer); }
MicroInterpreter::MicroInterpreter(const Model*, const MicroOpResolver&, uint8_t*, size_t) {}
TfLiteStatus MicroInterpreter::AllocateTensors() { return kTfLiteOk; }
TfLiteStatus MicroInterpreter::Invoke() {
  logits[kModelClasses - 1] = 1;
  return kTfLiteOk;
}
TfLiteTensor* MicroInterpreter::input(size_t) { return &input_tensor; }
TfLiteTensor* MicroInterpreter::output(size_t) { return &output_tensor; }
}  // namespace tflite

int main() {
  static uint8_t pixels[kModelImageSide * kModelImageSide * 3];
  for (unsigned i = 0; i < sizeof(pixels); ++i) pixels[i] = i % 256;
  if (Classify(pixels) != kModelClasses - 1) return 1;
  std::fwrite(image, 1, sizeof(image), stderr);
  std::fwrite(g_model, 1, g_model_len, stdout);
}

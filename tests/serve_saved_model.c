/* Runs one image through a SavedModel with TensorFlow's C API and prints the scores.

   serve FOLDER PIXELS INPUT OUTPUT OUTPUT_INDEX SIZE CHANNELS
   PIXELS holds float32 SIZE x SIZE x CHANNELS; INPUT and OUTPUT are operations of the graph. */

#include <stdio.h>
#include <stdlib.h>
#include <tensorflow/c/c_api.h>

static void require_ok(TF_Status* status) {
  if (TF_GetCode(status) != TF_OK) {
    fprintf(stderr, "%s\n", TF_Message(status));
    exit(1);
  }
}

int main(int argc, char** argv) {
  if (argc != 8) return 2;
  const char* tags[] = {"serve"};
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_Session* session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  require_ok(status);

  int64_t size = atoi(argv[6]), channels = atoi(argv[7]);
  int64_t shape[] = {1, size, size, channels};
  size_t bytes = sizeof(float) * size * size * channels;
  TF_Tensor* pixels = TF_AllocateTensor(TF_FLOAT, shape, 4, bytes);
  FILE* file = fopen(argv[2], "rb");
  if (!file || fread(TF_TensorData(pixels), 1, bytes, file) != bytes) return 3;
  fclose(file);

  TF_Output input = {TF_GraphOperationByName(graph, argv[3]), 0};
  TF_Output output = {TF_GraphOperationByName(graph, argv[4]), atoi(argv[5])};
  if (!input.oper || !output.oper) return 4;
  TF_Tensor* scores = NULL;
  TF_SessionRun(session, NULL, &input, &pixels, 1, &output, &scores, 1, NULL, 0, NULL, status);
  require_ok(status);
  const float* values = TF_TensorData(scores);
  for (int64_t i = 0; i < TF_Dim(scores, 1); ++i) printf("%.9g\n", values[i]);
  return 0;
}

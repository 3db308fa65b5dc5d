// Which word is read in which cycle. One command is one tile: for each vector the lanes' weights are held while the
// activations of all positions pass. A tile starts when its buffers are filled and accumulators are free; within a
// tile nothing stalls, except that after MAX_VECTORS vectors the sums are drained and the other accumulators taken.
`default_nettype none
module vsq_sequencer #(
    parameter int DEPTH = 16,
    parameter int WEIGHT_WORDS = 16,
    parameter int ACT_WORDS = 256,
    parameter int MAX_VECTORS = 256,
    parameter int POSITION_BITS = (DEPTH > 1) ? $clog2(DEPTH) : 1,
    parameter int WEIGHT_WORD_BITS = (WEIGHT_WORDS > 1) ? $clog2(WEIGHT_WORDS) : 1,
    parameter int ACT_WORD_BITS = (ACT_WORDS > 1) ? $clog2(ACT_WORDS) : 1
) (
    input  wire                         clk,
    input  wire                         rst,
    // a tile: the indices of its last position and vector, and what becomes of sums and buffers after it
    input  wire                         command_valid,
    output logic                        command_ready,
    input  wire  [POSITION_BITS-1:0]    command_last_position,
    input  wire  [WEIGHT_WORD_BITS-1:0] command_last_vector,
    input  wire                         command_drain,
    input  wire  [2:0]                  command_drain_how,  // handed on with `finish`
    input  wire                         command_free_weights,
    input  wire                         command_free_activations,
    // buffers
    input  wire                         weights_available,
    input  wire                         activations_available,
    output logic                        read,
    output logic                        read_weights,
    output logic [WEIGHT_WORD_BITS-1:0] weight_word,
    output logic [ACT_WORD_BITS-1:0]    activation_word,
    output logic                        free_weights,
    output logic                        free_activations,
    // accumulators
    input  wire  [1:0]                  drained,      // this bank of sums has left
    output logic [POSITION_BITS:0]      sum_address,  // {bank, position}
    output logic                        first,
    output logic                        finish,       // these are the last terms of the bank's sums
    output logic                        finish_partial,
    output logic [2:0]                  finish_how
);
  localparam int COUNT_BITS = (MAX_VECTORS > 1) ? $clog2(MAX_VECTORS) : 1;
  localparam logic [COUNT_BITS-1:0] LAST_COUNT = COUNT_BITS'(MAX_VECTORS - 1);

  logic                        busy;
  logic [POSITION_BITS-1:0]    last_position;
  logic [WEIGHT_WORD_BITS-1:0] last_vector;
  logic                        drain_after;
  logic [2:0]                  drain_how;
  logic                        free_weights_after;
  logic                        free_activations_after;
  logic [POSITION_BITS-1:0]    position;
  logic [COUNT_BITS-1:0]       accumulated;  // vectors in the sums so far
  logic                        bank;
  logic [1:0]                  taken;
  logic                        vector_end;
  logic                        tile_end;
  logic                        start;

  assign first = accumulated == '0;
  assign start = first && position == '0;
  assign read = busy && weights_available && activations_available && !(start && taken[bank]);
  assign read_weights = read && position == '0;
  assign vector_end = position == last_position;
  assign tile_end = vector_end && weight_word == last_vector;
  assign finish = read && vector_end && ((tile_end && drain_after) || accumulated == LAST_COUNT);
  assign finish_partial = !(tile_end && drain_after);
  assign finish_how = drain_how;
  assign free_weights = read && tile_end && free_weights_after;
  assign free_activations = read && tile_end && free_activations_after;
  assign command_ready = !busy || (read && tile_end);
  assign sum_address = {bank, position};

  always_ff @(posedge clk) begin
    if (command_valid && command_ready) begin
      last_position <= command_last_position;
      last_vector <= command_last_vector;
      drain_after <= command_drain;
      drain_how <= command_drain_how;
      free_weights_after <= command_free_weights;
      free_activations_after <= command_free_activations;
    end
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      busy <= 1'b0;
      position <= '0;
      weight_word <= '0;
      activation_word <= '0;
      accumulated <= '0;
      bank <= 1'b0;
      taken <= 2'b00;
    end else begin
      if (command_ready) busy <= command_valid;
      taken <= taken & ~drained;
      if (read) begin
        position <= vector_end ? '0 : position + 1'b1;
        activation_word <= tile_end ? '0 : activation_word + 1'b1;
        if (start) taken[bank] <= 1'b1;
        if (vector_end) begin
          weight_word <= tile_end ? '0 : weight_word + 1'b1;
          accumulated <= finish ? '0 : accumulated + 1'b1;
        end
        if (finish) bank <= !bank;
      end
    end
  end
endmodule
`default_nettype wire

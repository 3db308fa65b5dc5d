// Takes finished sums out of the accumulators, E lanes a cycle, position by position, with the constants of their
// output channels: `out_requantize` says whether through the post-processing unit, or out as they are. Partial sums are never
// post-processed: they still have to be added to others.
`default_nettype none
module vsq_drain #(
    parameter int LANES = 16,
    parameter int E = 2,
    parameter int ACC_BITS = 24,
    parameter int DEPTH = 16,
    parameter int POSITION_BITS = (DEPTH > 1) ? $clog2(DEPTH) : 1,
    parameter int BEATS = LANES / E,
    parameter int BEAT_BITS = (BEATS > 1) ? $clog2(BEATS) : 1
) (
    input  wire                       clk,
    input  wire                       rst,
    // a bank of sums is complete
    input  wire                       finished,
    input  wire                       finished_bank,
    input  wire  [POSITION_BITS-1:0]  finished_last_position,
    input  wire                       finished_partial,
    input  wire  [2:0]                finished_how,  // {requantize, ReLU, free the constants}
    // accumulators
    output logic [POSITION_BITS:0]    read_address,
    input  wire  [LANES*ACC_BITS-1:0] sums,
    output logic [1:0]                drained,
    // constants of the output channels
    input  wire                       constants_available,
    output logic                      read_constants,
    output logic [BEAT_BITS-1:0]      constants_word,
    output logic                      free_constants,
    // what leaves
    output logic                      out_valid,
    input  wire                       out_ready,
    output logic [E*ACC_BITS-1:0]     out_sums,
    output logic                      out_last,
    output logic                      out_partial,
    output logic                      out_requantize,
    output logic                      out_relu
);
  localparam int INFO_BITS = POSITION_BITS + 4;
  localparam logic [BEAT_BITS-1:0] LAST_BEAT = BEAT_BITS'(BEATS - 1);

  logic [INFO_BITS-1:0]     info [0:1];
  logic [1:0]               full;
  logic                     bank;
  logic [POSITION_BITS-1:0] position;
  logic [BEAT_BITS-1:0]     beat;
  logic [POSITION_BITS-1:0] last_position;
  logic                     partial;
  logic                     asked;
  logic                     requantize;
  logic                     relu;
  logic                     free_after;
  logic                     take;
  logic                     last;

  assign {last_position, partial, asked, relu, free_after} = info[bank];
  assign requantize = asked && !partial;
  assign read_address = {bank, position};
  assign constants_word = beat;
  assign take = full[bank] && (!out_valid || out_ready) && (!requantize || constants_available);
  assign last = position == last_position && beat == LAST_BEAT;
  assign read_constants = take && requantize;
  assign free_constants = read_constants && last && free_after;
  assign drained = {take && last && bank, take && last && !bank};

  always_ff @(posedge clk) begin
    if (finished)
      info[finished_bank] <= {finished_last_position, finished_partial, finished_how};
    if (take) begin
      out_sums <= sums[beat*(E*ACC_BITS) +: E*ACC_BITS];
      out_last <= last;
      out_partial <= partial;
      out_requantize <= requantize;
      out_relu <= relu;
    end
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      full <= 2'b00;
      bank <= 1'b0;
      position <= '0;
      beat <= '0;
      out_valid <= 1'b0;
    end else begin
      full <= (full & ~drained) | {finished && finished_bank, finished && !finished_bank};
      if (take) begin
        beat <= (beat == LAST_BEAT) ? '0 : beat + 1'b1;
        if (beat == LAST_BEAT) position <= last ? '0 : position + 1'b1;
        if (last) bank <= !bank;
      end
      if (take || out_ready) out_valid <= take;
    end
  end
endmodule
`default_nettype wire

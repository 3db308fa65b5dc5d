// The accumulators of one lane: two banks (one is filled, one drained) of a sum for each position, and one adder.
// `first` replaces the sum instead of adding to it.
`default_nettype none
module vsq_collector #(
    parameter int SCALED_BITS = 16,
    parameter int ACC_BITS = 24,
    parameter int DEPTH = 16,
    parameter int POSITION_BITS = (DEPTH > 1) ? $clog2(DEPTH) : 1
) (
    input  wire                           clk,
    input  wire                           valid,
    input  wire                           first,
    input  wire  [POSITION_BITS:0]        address,  // {bank, position}
    input  wire  signed [SCALED_BITS-1:0] partial,
    input  wire  [POSITION_BITS:0]        read_address,
    output logic signed [ACC_BITS-1:0]    sum
);
  logic signed [ACC_BITS-1:0] sums [0:2*(1<<POSITION_BITS)-1];
  logic signed [ACC_BITS-1:0] held;

  assign held = sums[address] & {ACC_BITS{!first}};
  assign sum = sums[read_address];

  always_ff @(posedge clk) begin
    if (valid) sums[address] <= held + ACC_BITS'(partial);
  end
endmodule
`default_nettype wire

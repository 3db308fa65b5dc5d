// The sum of eq. (7) over the vectors of a reduction. In a cycle with `valid` it takes one partial sum; `first` starts a
// new sum with it. ACC_BITS is eq. (9) for the longest reduction, so the sum never wraps.
module vsq_accumulator #(
    parameter int SCALED_BITS = 19,
    parameter int ACC_BITS = 27
) (
    input  wire                          clk,
    input  wire                          valid,
    input  wire                          first,
    input  wire signed [SCALED_BITS-1:0] partial,
    output reg signed  [ACC_BITS-1:0]    acc
);
  wire signed [ACC_BITS-1:0] carried = acc & {ACC_BITS{~first}};

  always_ff @(posedge clk) begin
    if (valid) acc <= carried + ACC_BITS'(partial);
  end
endmodule

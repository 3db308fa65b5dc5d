// One output channel's sum in the units of the next layer, three stages: the product with the channel's multiplier,
// the right shift that rounds half up, the bias; then saturation and, where asked for, ReLU.
`default_nettype none
module vsq_ppu_scale #(
    parameter int ACC_BITS = 24,
    parameter int MULT_BITS = 16,
    parameter int SHIFT_BITS = 6,
    parameter int BIAS_BITS = 24,
    parameter int T_BITS = 24
) (
    input  wire                         clk,
    input  wire                         enable,
    input  wire                         relu,
    input  wire  signed [ACC_BITS-1:0]  sum,
    input  wire  [MULT_BITS-1:0]        multiplier,
    input  wire  [SHIFT_BITS-1:0]       shift,
    input  wire  signed [BIAS_BITS-1:0] bias,
    output logic signed [T_BITS-1:0]    value
);
  localparam int PRODUCT_BITS = ACC_BITS + MULT_BITS + 1;
  localparam int WIDEST = (PRODUCT_BITS > BIAS_BITS) ? PRODUCT_BITS : BIAS_BITS;
  localparam int BIASED_BITS = ((WIDEST > T_BITS) ? WIDEST : T_BITS) + 1;
  localparam logic signed [BIASED_BITS-1:0] HIGHEST = (BIASED_BITS'(1) << (T_BITS - 1)) - 1'b1;

  logic signed [PRODUCT_BITS-1:0] product;
  logic        [SHIFT_BITS-1:0]   shift_1;
  logic signed [BIAS_BITS-1:0]    bias_1;
  logic                           relu_1;
  logic signed [PRODUCT_BITS-1:0] half;
  logic signed [PRODUCT_BITS-1:0] scaled;
  logic signed [BIAS_BITS-1:0]    bias_2;
  logic                           relu_2;
  logic signed [BIASED_BITS-1:0]  biased;
  logic signed [T_BITS-1:0]       saturated;

  assign half = (PRODUCT_BITS'(1) << shift_1) >> 1;
  assign biased = BIASED_BITS'(scaled) + BIASED_BITS'(bias_2);

  always_comb begin
    saturated = T_BITS'(biased);
    if (biased > HIGHEST) saturated = T_BITS'(HIGHEST);
    if (biased < -HIGHEST) saturated = T_BITS'(-HIGHEST);
    if (relu_2 && biased < 0) saturated = '0;
  end

  always_ff @(posedge clk) begin
    if (enable) begin
      product <= PRODUCT_BITS'(sum) * $signed({1'b0, multiplier});
      shift_1 <= shift;
      bias_1 <= bias;
      relu_1 <= relu;
      scaled <= (product + half) >>> shift_1;
      bias_2 <= bias_1;
      relu_2 <= relu_1;
      value <= saturated;
    end
  end
endmodule
`default_nettype wire

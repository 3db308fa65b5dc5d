// One vector's part of eq. (7): V code products, an adder tree, the scale product of eq. (8), a scale multiplier.
//
// Three cycles from operands to partial sum in every configuration: R0 holds operands, R1 the dot product and the scale
// product, R2 the partial sum. Where a dot product or a scale product is zero R1 keeps its values, so that the scale
// multiplier does not switch, and a flag makes the partial sum zero.
//
// w_load: the weight registers take w and sw.  a_valid: the activation registers take a and sa; `valid` follows three
// cycles later. An operand that both load in one cycle meet each other. Element i of a vector is bits [i*B +: B].
// Without vector scales (WSB = ASB = 0) the partial sum is the dot product. The widths are those of `Lane`.
module vsq_vector_mac #(
    parameter int V = 16,
    parameter int WB = 4,
    parameter int AB = 4,
    parameter int A_SIGNED = 1,
    parameter int WSB = 4,
    parameter int ASB = 4,
    parameter int PB = 0,
    parameter int W_TOP = 0,
    parameter int SCALE_PRODUCT_BITS = 8,
    parameter int DOT_BITS = 11,
    parameter int SCALED_BITS = 19
) (
    input  wire                             clk,
    input  wire                             rst,
    input  wire                             w_load,
    input  wire                             a_valid,
    input  wire [V*WB-1:0]                  w,
    input  wire [((WSB > 0) ? WSB : 1)-1:0] sw,
    input  wire [V*AB-1:0]                  a,
    input  wire [((ASB > 0) ? ASB : 1)-1:0] sa,
    output reg                              valid,
    output reg signed [SCALED_BITS-1:0]     partial
);
  localparam int PRODUCT_BITS = (WB + AB < DOT_BITS) ? WB + AB : DOT_BITS;

  reg [V*WB-1:0] weight;
  reg [V*AB-1:0] activation;
  reg operands_valid, dot_valid;

  always_ff @(posedge clk) begin
    if (w_load) weight <= w;
    if (a_valid) activation <= a;
    operands_valid <= a_valid & ~rst;
    dot_valid <= operands_valid & ~rst;
    valid <= dot_valid & ~rst;
  end

  genvar i;
  generate
    for (i = 0; i < V; i = i + 1) begin : g_term
      wire signed [PRODUCT_BITS-1:0] code_w = PRODUCT_BITS'($signed(weight[i*WB+:WB]));
      wire signed [PRODUCT_BITS-1:0] code_a;
      wire signed [DOT_BITS-1:0] sum;
      if (A_SIGNED != 0) begin : g_signed
        assign code_a = PRODUCT_BITS'($signed(activation[i*AB+:AB]));
      end else begin : g_unsigned
        assign code_a = $signed({{(PRODUCT_BITS - AB) {1'b0}}, activation[i*AB+:AB]});
      end
      wire signed [PRODUCT_BITS-1:0] product = code_w * code_a;
      if (i == 0) begin : g_first
        assign sum = DOT_BITS'(product);
      end else begin : g_next
        assign sum = g_term[i-1].sum + DOT_BITS'(product);
      end
    end
  endgenerate

  wire signed [DOT_BITS-1:0] dot = g_term[V-1].sum;
  reg signed [DOT_BITS-1:0] dot_held;

  generate
    if (WSB == 0 && ASB == 0) begin : g_per_channel
      wire unused_scales = &{1'b0, sw, sa};
      always_ff @(posedge clk) begin
        dot_held <= dot;
        partial <= dot_held;
      end
    end else begin : g_per_vector
      reg [((WSB > 0) ? WSB : 1)-1:0] weight_scale;
      reg [((ASB > 0) ? ASB : 1)-1:0] activation_scale;
      wire [SCALE_PRODUCT_BITS-1:0] scale_product;
      reg [SCALE_PRODUCT_BITS-1:0] scale_held;
      reg zero_held;

      vsq_scale_product #(
          .WSB(WSB),
          .ASB(ASB),
          .PB(PB),
          .W_TOP(W_TOP),
          .SCALE_PRODUCT_BITS(SCALE_PRODUCT_BITS)
      ) rounded (
          .sw(weight_scale),
          .sa(activation_scale),
          .product(scale_product)
      );

      wire zero = ~((|scale_product) & (|dot));
      wire signed [SCALED_BITS-1:0] scaled =
          SCALED_BITS'(dot_held) * $signed({{(SCALED_BITS - SCALE_PRODUCT_BITS) {1'b0}}, scale_held});

      always_ff @(posedge clk) begin
        if (w_load) weight_scale <= sw;
        if (a_valid) activation_scale <= sa;
        if (~zero) begin
          dot_held <= dot;
          scale_held <= scale_product;
        end
        zero_held <= zero;
        partial <= scaled & {SCALED_BITS{~zero_held}};
      end
    end
  endgenerate
endmodule

// One vector's part of eq. (7): V code products, an adder tree, the scale product of eq. (8), a scale multiplier.
//
// Three cycles from operands to partial sum in every configuration: R0 holds operands, R1 the dot product and the scale
// product, R2 the partial sum. Where the scale product is zero R1 keeps its values, so that the scale multiplier does not
// switch, and a flag makes the partial sum zero. (A zero dot product is known too late, behind the adder tree.)
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
  localparam bit [AB-1:0] ROW_NEGATIVE = (A_SIGNED != 0) ? AB'(1) << (AB - 1) : AB'(0);
  localparam bit [AB-1:0] LAST_ROW_NEGATIVE = ~ROW_NEGATIVE;
  localparam bit [DOT_BITS-1:0] DOT_SIGN = DOT_BITS'(1) << (DOT_BITS - 1);
  localparam bit [SCALED_BITS-1:0] ALL_SCALE_BITS = (SCALED_BITS'(1) << SCALE_PRODUCT_BITS) - SCALED_BITS'(1);
  localparam int OFFSET = V * ((1 << (WB - 1)) - (1 << (WB + AB - 1)) + ((A_SIGNED != 0) ? 1 << (AB - 1) : 0));

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

  // All V*WB partial products and the constant are one sum of unsigned rows, so that synthesis makes one compressor tree
  // of it. The rows are those of Baugh and Wooley: a bit of negative weight -2^n*x is 2^n*~x - 2^n, and OFFSET has every
  // - 2^n. It takes the place of sign extensions.
  genvar i, j;
  generate
    for (i = 0; i < V; i = i + 1) begin : g_term
      for (j = 0; j < WB; j = j + 1) begin : g_row
        wire [AB-1:0] bits = activation[i*AB+:AB] & {AB{weight[i*WB+j]}};
        wire [AB-1:0] row = bits ^ ((j == WB - 1) ? LAST_ROW_NEGATIVE : ROW_NEGATIVE);
        wire [DOT_BITS-1:0] sum;
        if (j > 0) begin : g_same_term
          assign sum = g_term[i].g_row[j-1].sum + (DOT_BITS'(row) << j);
        end else if (i > 0) begin : g_next_term
          assign sum = g_term[i-1].g_row[WB-1].sum + DOT_BITS'(row);
        end else begin : g_first_term
          assign sum = DOT_BITS'(OFFSET) + DOT_BITS'(row);
        end
      end
    end
  endgenerate

  wire signed [DOT_BITS-1:0] dot = g_term[V-1].g_row[WB-1].sum;
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

      wire zero = ~|scale_product;
      // The multiplier by the same rows: a signed x is x with its first bit inverted, less 2^(DOT_BITS-1).
      genvar k;
      for (k = 0; k < SCALE_PRODUCT_BITS; k = k + 1) begin : g_multiple
        wire [DOT_BITS-1:0] multiple = (dot_held & {DOT_BITS{scale_held[k]}}) ^ DOT_SIGN;
        wire [SCALED_BITS-1:0] sum;
        if (k == 0) begin : g_first
          assign sum = SCALED_BITS'(multiple) - (ALL_SCALE_BITS << (DOT_BITS - 1));
        end else begin : g_next
          assign sum = g_multiple[k-1].sum + (SCALED_BITS'(multiple) << k);
        end
      end
      wire [SCALED_BITS-1:0] scaled = g_multiple[SCALE_PRODUCT_BITS-1].sum;

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

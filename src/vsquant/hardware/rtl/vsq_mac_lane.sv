// One lane: a vector MAC and the accumulator behind it, four cycles from operands to sum. `first` comes with a_valid and
// starts a new sum; acc_valid says that acc has taken a vector. See vsq_vector_mac for the operands and the parameters.
module vsq_mac_lane #(
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
    parameter int SCALED_BITS = 19,
    parameter int ACC_BITS = 27
) (
    input  wire                             clk,
    input  wire                             rst,
    input  wire                             w_load,
    input  wire                             a_valid,
    input  wire                             first,
    input  wire [V*WB-1:0]                  w,
    input  wire [((WSB > 0) ? WSB : 1)-1:0] sw,
    input  wire [V*AB-1:0]                  a,
    input  wire [((ASB > 0) ? ASB : 1)-1:0] sa,
    output reg                              acc_valid,
    output wire signed [ACC_BITS-1:0]       acc
);
  localparam int DEPTH = 3;

  wire valid;
  wire signed [SCALED_BITS-1:0] partial;
  reg [DEPTH-1:0] first_delayed;

  always_ff @(posedge clk) begin
    first_delayed <= {first_delayed[DEPTH-2:0], first};
    acc_valid <= valid & ~rst;
  end

  vsq_vector_mac #(
      .V(V),
      .WB(WB),
      .AB(AB),
      .A_SIGNED(A_SIGNED),
      .WSB(WSB),
      .ASB(ASB),
      .PB(PB),
      .W_TOP(W_TOP),
      .SCALE_PRODUCT_BITS(SCALE_PRODUCT_BITS),
      .DOT_BITS(DOT_BITS),
      .SCALED_BITS(SCALED_BITS)
  ) vector_mac (
      .clk(clk),
      .rst(rst),
      .w_load(w_load),
      .a_valid(a_valid),
      .w(w),
      .sw(sw),
      .a(a),
      .sa(sa),
      .valid(valid),
      .partial(partial)
  );

  vsq_accumulator #(
      .SCALED_BITS(SCALED_BITS),
      .ACC_BITS(ACC_BITS)
  ) accumulator (
      .clk(clk),
      .valid(valid),
      .first(first_delayed[DEPTH-1]),
      .partial(partial),
      .acc(acc)
  );
endmodule

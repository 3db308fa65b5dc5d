// LANES lanes with their weight buffers: one vector of activations goes to all of them, one sum a position stays in
// each. A beat of the load port is one lane's vector; lane by lane, vector by vector.
`default_nettype none
module vsq_pe_lanes #(
    parameter int LANES = 16,
    parameter int DEPTH = 16,
    parameter int WEIGHT_WORDS = 16,
    parameter int V = 16,
    parameter int WB = 4,
    parameter int AB = 4,
    parameter int A_SIGNED = 0,
    parameter int WSB = 4,
    parameter int ASB = 6,
    parameter int PB = 0,
    parameter int W_TOP = 0,
    parameter int SCALE_PRODUCT_BITS = 10,
    parameter int DOT_BITS = 12,
    parameter int SCALED_BITS = 22,
    parameter int ACC_BITS = 30,
    parameter int WSW = (WSB > 0) ? WSB : 1,
    parameter int ASW = (ASB > 0) ? ASB : 1,
    parameter int LANE_BITS = (LANES > 1) ? $clog2(LANES) : 1,
    parameter int WORD_BITS = (WEIGHT_WORDS > 1) ? $clog2(WEIGHT_WORDS) : 1,
    parameter int POSITION_BITS = (DEPTH > 1) ? $clog2(DEPTH) : 1
) (
    input  wire                       clk,
    input  wire                       rst,
    // weight buffers
    input  wire                       write,
    input  wire  [LANE_BITS-1:0]      write_lane,
    input  wire  [WORD_BITS:0]        write_address,
    input  wire  [V*WB-1:0]           write_codes,
    input  wire  [WSW-1:0]            write_scale,
    input  wire                       read,
    input  wire  [WORD_BITS:0]        read_address,
    // operands
    input  wire                       load_weights,
    input  wire                       activations_valid,
    input  wire  [V*AB-1:0]           activations,
    input  wire  [ASW-1:0]            activation_scale,
    // accumulators
    input  wire                       first,
    input  wire  [POSITION_BITS:0]    sum_address,
    input  wire  [POSITION_BITS:0]    drain_address,
    output logic [LANES*ACC_BITS-1:0] sums
);
  for (genvar lane = 0; lane < LANES; lane++) begin : g_lane
    logic [V*WB-1:0]               codes;
    logic [WSW-1:0]                scale;
    logic                          valid;
    logic signed [SCALED_BITS-1:0] partial;
    logic                          write_here;

    assign write_here = write && write_lane == LANE_BITS'(lane);

    vsq_sram #(
        .WIDTH(V * WB),
        .DEPTH(2 * (1 << WORD_BITS))
    ) u_codes (
        .clk(clk),
        .write(write_here),
        .write_address(write_address),
        .write_data(write_codes),
        .read(read),
        .read_address(read_address),
        .read_data(codes)
    );

    if (WSB > 0) begin : g_scale
      vsq_sram #(
          .WIDTH(WSB),
          .DEPTH(2 * (1 << WORD_BITS))
      ) u_scales (
          .clk(clk),
          .write(write_here),
          .write_address(write_address),
          .write_data(write_scale),
          .read(read),
          .read_address(read_address),
          .read_data(scale)
      );
    end else begin : g_no_scale
      assign scale = '0;
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
    ) u_mac (
        .clk(clk),
        .rst(rst),
        .w_load(load_weights),
        .a_valid(activations_valid),
        .w(codes),
        .sw(scale),
        .a(activations),
        .sa(activation_scale),
        .valid(valid),
        .partial(partial)
    );

    vsq_collector #(
        .SCALED_BITS(SCALED_BITS),
        .ACC_BITS(ACC_BITS),
        .DEPTH(DEPTH)
    ) u_collector (
        .clk(clk),
        .valid(valid),
        .first(first),
        .address(sum_address),
        .partial(partial),
        .read_address(drain_address),
        .sum(sums[lane*ACC_BITS +: ACC_BITS])
    );
  end

  if (WSB == 0) begin : g_unused
    wire unused = &{1'b0, write_scale};
  end
endmodule
`default_nettype wire

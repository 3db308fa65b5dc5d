// Double buffering: one bank is filled through a valid/ready port while the other is read. A beat fills one slice of
// the word; `load_last` marks the last beat of a bank. WORDS is a power of two.
`default_nettype none
module vsq_bank_control #(
    parameter int SLICES = 1,
    parameter int WORDS = 16,
    parameter int SLICE_BITS = (SLICES > 1) ? $clog2(SLICES) : 1,
    parameter int WORD_BITS = (WORDS > 1) ? $clog2(WORDS) : 1
) (
    input  wire                   clk,
    input  wire                   rst,
    input  wire                   load_valid,
    output logic                  load_ready,
    input  wire                   load_last,
    output logic [SLICE_BITS-1:0] slice,
    output logic [WORD_BITS:0]    write_address,  // {bank, word}
    input  wire                   free,           // the bank that is read will not be read again
    output logic                  available,
    output logic                  read_bank
);
  localparam logic [SLICE_BITS-1:0] LAST_SLICE = SLICE_BITS'(SLICES - 1);

  logic [1:0]           full;
  logic                 write_bank;
  logic [WORD_BITS-1:0] word;

  assign load_ready = !full[write_bank];
  assign write_address = {write_bank, word};
  assign available = full[read_bank];

  always_ff @(posedge clk) begin
    if (rst) begin
      full <= 2'b00;
      write_bank <= 1'b0;
      read_bank <= 1'b0;
      slice <= '0;
      word <= '0;
    end else begin
      if (load_valid && load_ready) begin
        slice <= (load_last || slice == LAST_SLICE) ? '0 : slice + 1'b1;
        if (load_last) begin
          word <= '0;
          full[write_bank] <= 1'b1;
          write_bank <= !write_bank;
        end else if (slice == LAST_SLICE) begin
          word <= word + 1'b1;
        end
      end
      if (free) begin
        full[read_bank] <= 1'b0;
        read_bank <= !read_bank;
      end
    end
  end
endmodule
`default_nettype wire
